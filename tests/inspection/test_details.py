"""Details tell one picture, saved anew, from two that are merely alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.inspection.copies import Copy, find_copies
from seewhy.inspection.details import agreement, details
from seewhy.inspection.pixels import pixel_facts


def shirt(seed: int) -> np.ndarray:
    """One and the same shape on white, with a pattern of its own: points of 224 in blocks of seven."""
    draw = np.random.default_rng(seed)
    picture = np.full((224, 224), 250, np.uint8)
    picture[28:196, 56:168] = np.kron(draw.integers(40, 120, (24, 16)), np.ones((7, 7))).astype(np.uint8)
    return np.repeat(picture[..., None], 3, 2)


def cut(pixels: np.ndarray, part: float) -> np.ndarray:
    n = round(part * len(pixels))
    return np.asarray(Image.fromarray(pixels[n:-n, n:-n]).resize((224, 224), Image.Resampling.BILINEAR))


def fine(pixels: np.ndarray) -> np.ndarray:
    return pixel_facts(pixels, (224, 224)).fine


def agree(a: np.ndarray, b: np.ndarray) -> float:
    of = details([fine(a), fine(b)])
    there, back = (float(agreement(of, torch.tensor([i]), torch.tensor([1 - i]))) for i in (0, 1))
    assert there == pytest.approx(back, abs=1e-4)  # it does not matter which is mirrored or cut
    return there


def test_a_picture_agrees_with_itself_mirrored_and_cut_and_with_no_other() -> None:
    one = shirt(0)
    assert agree(one, one) == pytest.approx(1, abs=1e-5)
    assert agree(one, one[:, ::-1]) == pytest.approx(1, abs=1e-4)
    assert agree(one, (one * 0.8).astype(np.uint8)) > 0.99
    assert agree(one, cut(one, 0.05)) > 0.85
    assert agree(one, cut(one, 0.02)[:, ::-1]) > 0.85
    assert agree(one, cut(one, 0.12)) < 0.7
    assert agree(one, shirt(1)) < 0.7
    assert agree(one, np.full_like(one, 90)) == 0


def test_light_and_shade_are_no_detail() -> None:
    """A wide gradient is what pictures of one studio share."""
    slope = np.linspace(30, 200, 224)[None, :, None].repeat(3, 2)
    grain = [np.kron(np.random.default_rng(i).integers(0, 25, (32, 32, 1)), np.ones((7, 7, 1))) for i in (0, 1)]
    one, other = ((slope + g).astype(np.uint8) for g in grain)
    assert agree(one, other) < 0.5
    assert agree(one, one[:, ::-1]) > 0.99


def test_many_pairs_are_as_each_by_itself() -> None:
    of = details([fine(shirt(i)) for i in range(3)])
    pairs = torch.tensor([0, 1, 2, 0]).repeat(100), torch.tensor([1, 2, 0, 0]).repeat(100)
    found = agreement(of, *pairs)
    alone = torch.cat([agreement(of, pairs[0][k : k + 1], pairs[1][k : k + 1]) for k in range(4)])
    assert torch.allclose(found, alone.repeat(100), atol=1e-6)
    none = torch.zeros(0, dtype=torch.long)
    assert agreement(of, none, none).shape == (0,)


def test_pictures_that_are_merely_alike_are_no_copies() -> None:
    """Their features are the same here, and at 16 points they look the same."""
    facts = [pixel_facts(x, (224, 224)) for x in (shirt(0), shirt(1), cut(shirt(0), 0.05), shirt(1)[:, ::-1])]
    small = np.stack([f.small.ravel() for f in facts])
    assert (small @ small.T).min() > 0.8
    assert find_copies(torch.ones(4, 16), facts, list("abcd")) == (Copy(0, 2, 1.0, False), Copy(1, 3, 1.0, False))
    apart = torch.eye(4, 16)
    assert find_copies(apart, facts, list("abcd")) == ()
    assert find_copies(torch.zeros(0, 16), [], []) == ()
