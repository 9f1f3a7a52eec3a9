"""Prefix and FocalLens: closed forms of what pairs with one label, or one answer, are to one another."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.errors import InputError
from seewhy.learning.objectives.contrastive import Contrastive
from seewhy.learning.objectives.pairs import CLIP, FocalLens, Prefix

LABELS = torch.tensor([4, 9, 4, 4, 2, 9])


def pairs() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return torch.randn(6, 4, generator=draw), torch.randn(6, 4, generator=draw)


def by_hand(how: str, scale: float) -> float:
    """Both directions, row by row."""
    image, text = (normalize(side.double(), dim=1) for side in pairs())
    total = 0.0
    for scores in (scale * image @ text.T, scale * text @ image.T):
        for i in range(6):
            alike = [j for j in range(6) if LABELS[j] == LABELS[i]]
            seen = [j for j in range(6) if how != "masked" or j == i or j not in alike]
            total_weight = math.log(sum(math.exp(scores[i, j]) for j in seen))
            right = alike if how == "positive" else [i]
            total += total_weight - sum(float(scores[i, j]) for j in right) / len(right)
    return total / 12


@pytest.mark.parametrize(
    ("objective", "how"),
    [
        (FocalLens(0.1), "positive"),
        (FocalLens(0.1, same_answer="masked"), "masked"),
        (FocalLens(0.1, same_answer="negative"), "negative"),
        (Prefix(0.1), "positive"),
        (Prefix(0.1, same_label=False), "negative"),
    ],
    ids=str,
)
def test_brute_force(objective: Contrastive, how: str) -> None:
    assert float(objective(*pairs(), LABELS)) == pytest.approx(by_hand(how, 10.0), rel=1e-5)


@pytest.mark.parametrize("objective", [FocalLens(), FocalLens(same_answer="masked"), Prefix()], ids=str)
def test_where_no_two_are_alike_it_is_clip(objective: Contrastive) -> None:
    assert float(objective(*pairs(), torch.arange(6))) == pytest.approx(float(CLIP()(*pairs())), rel=1e-6)


@pytest.mark.parametrize("cls", [FocalLens, Prefix])
def test_the_scale_is_learnt_and_held(cls: Any) -> None:
    state = cls(0.05, max_scale=40).state()
    assert state.log_scale.exp().item() == pytest.approx(20)
    for far, wanted in ((-3.0, 1), (9.0, 40)):
        state.log_scale.data.fill_(far)
        state.hold()
        assert state.log_scale.exp().item() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            lambda: FocalLens(0.005),
            (
                "temperature must be at least 1 / max_scale for the objective focallens, got temperature=0.005, "
                "max_scale=100.0."
            ),
        ),
        (
            lambda: FocalLens()(*pairs()),
            (
                "`labels` must be given for the objective focallens: it needs an answer label for each triplet. "
                "Give labels, or set same_answer='negative'."
            ),
        ),
        (
            lambda: Prefix()(*pairs()),
            (
                "`labels` must be given for the objective prefix: it needs a class label for each pair, and a unique "
                "label for each caption. Give labels, or set same_label=False."
            ),
        ),
    ],
)
def test_what_is_refused(wrong: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        wrong()
    assert str(caught.value) == sentence
