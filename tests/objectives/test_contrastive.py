"""Objectives over all pairs of a batch: against open_clip and transformers, by hand, in blocks and shares."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from seewhy.learning.objectives import contrastive
from seewhy.learning.objectives.contrastive import Contrastive
from seewhy.learning.objectives.pairs import ALIGN, CLIP, GIST, SigLIP

OBJECTIVES = [CLIP(), SigLIP(), ALIGN(), GIST(10, "masked"), GIST(10, "positive")]


def pairs(n: int = 24, d: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    sides = (torch.randn(n, d, generator=draw) for _ in "it")
    image, text = (side.requires_grad_() for side in sides)
    return image, text, torch.arange(n) % 5


def slopes(loss: Tensor, *at: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, at)]


def same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def ours(objective: Contrastive, image: Tensor, text: Tensor) -> list[Tensor]:
    state = objective.state()
    return slopes(objective(image, text, state=state), image, text, *state.parameters())


@pytest.mark.slow
def test_clip_is_that_of_open_clip() -> None:
    loss = pytest.importorskip("open_clip.loss", reason="open_clip is not installed").ClipLoss()
    image, text, _ = pairs()
    log = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    theirs = loss(normalize(image, dim=1), normalize(text, dim=1), log.exp())
    same(ours(CLIP(), image, text), slopes(theirs, image, text, log))


@pytest.mark.slow
def test_siglip_is_that_of_open_clip() -> None:
    loss = pytest.importorskip("open_clip.loss", reason="open_clip is not installed").SigLipLoss()
    image, text, _ = pairs()
    log, bias = (torch.tensor(v, requires_grad=True) for v in (math.log(10), -10.0))
    theirs = loss(normalize(image, dim=1), normalize(text, dim=1), log.exp(), bias)
    same(ours(SigLIP(), image, text), slopes(theirs, image, text, log, bias))


@pytest.mark.slow
def test_align_is_twice_that_of_transformers() -> None:
    module = pytest.importorskip("transformers.models.align.modeling_align", reason="transformers is not installed")
    image, text, _ = pairs()
    sigma = torch.tensor(0.2, requires_grad=True)
    theirs = 2 * module.align_loss(normalize(text, dim=1) @ normalize(image, dim=1).T / sigma)
    same(ours(ALIGN(temperature=0.2), image, text), slopes(theirs, image, text, sigma))


def test_scores_smoothing_and_sigmoids_by_hand() -> None:
    """Two pairs whose cosines are 1 and 0."""
    assert float(CLIP(0.25)(torch.eye(2), torch.eye(2))) == pytest.approx(math.log(1 + math.exp(-4)), rel=1e-5)
    lost = math.log(1 + math.exp(-1))
    assert float(ALIGN(1.0, 0.2)(torch.eye(2), torch.eye(2))) == pytest.approx(2 * (0.9 * lost + 0.1 * (1 + lost)))
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-3))
    assert float(SigLIP(5.0, -3.0)(torch.eye(2), torch.eye(2))) == pytest.approx(right + wrong)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_blocks_change_nothing(objective: Contrastive, monkeypatch: pytest.MonkeyPatch) -> None:
    image, text, labels = pairs()
    state = objective.state()
    at = [image, text, *state.parameters()]
    whole = slopes(objective(image, text, labels, state), *at)
    sizes: list[int] = []
    kept = type(objective).rows

    def rows(self: Contrastive, scores: Tensor, *others: Any) -> Tensor:
        sizes.append(scores.numel())
        return kept(self, scores, *others)

    monkeypatch.setattr(contrastive, "BLOCK", 5 * 24)
    monkeypatch.setattr(type(objective), "rows", rows)
    same(slopes(objective(image, text, labels, state), *at), whole)
    assert max(sizes) == 5 * 24


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_shares_make_the_whole(objective: Contrastive) -> None:
    """Unequal ones, each weighted by its rows."""
    image, text, labels = pairs()
    state = objective.state()
    at = [image, text, *state.parameters()]
    parts = [objective(image, text, labels, state, share=(a, b)) * (b - a) / 24 for a, b in ((0, 7), (7, 8), (8, 24))]
    same(slopes(torch.stack(parts).sum(), *at), slopes(objective(image, text, labels, state), *at))


@pytest.mark.parametrize(("objective", "bounds"), [(CLIP(), (1, 100)), (SigLIP(max_scale=50), (1, 50))])
def test_a_scale_is_held(objective: Contrastive, bounds: tuple[float, float]) -> None:
    state = objective.state()
    for far, wanted in zip((-3.0, 9.0), bounds, strict=True):
        state.log_scale.data.fill_(far)
        state.hold()
        assert state.log_scale.exp().item() == pytest.approx(wanted)
    divided = ALIGN().state()
    divided.temperature.data.fill_(-1.0)
    divided.hold()
    assert divided.temperature.item() == pytest.approx(0.01)


def test_scores_are_exact_where_networks_are_not() -> None:
    image, text, _ = pairs()
    with torch.autocast("cpu", torch.bfloat16):
        inside = CLIP()(image, text)
    assert torch.equal(inside, CLIP()(image, text))


def test_parameters_are_learnt_only_where_somebody_keeps_them() -> None:
    image, text, _ = (side.detach() for side in pairs())
    assert not CLIP()(image, text).requires_grad
    assert {n for n, _ in SigLIP().state().named_parameters()} == {"log_scale", "bias"}
    assert isinstance(GIST().state(), nn.Module)
    assert not [*GIST().state().parameters()]
