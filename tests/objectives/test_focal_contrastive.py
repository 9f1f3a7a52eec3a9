"""RO-ViT's focal contrastive loss: against the authors' numbers, by hand, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from seewhy.learning.objectives.pairs import CLIP, DITO, FocalContrastive, focal_costs

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "dito.json").read_text("utf-8"))


@pytest.mark.parametrize("run", GOLDEN["focal"], ids=lambda r: f"{r['alpha']}, {r['gamma']}")
def test_against_the_authors(run: dict[str, float]) -> None:
    scores = GOLDEN["scale"] * torch.tensor(GOLDEN["cosines"])
    found = focal_costs(scores, torch.arange(5), run["alpha"], run["gamma"]).mean()
    assert float(found) == pytest.approx(run["loss"], abs=GOLDEN["tolerance"])


def test_by_hand() -> None:
    """Cosines are [[1, 0.6], [0, 0.8]], at a scale of 2."""
    image, text = torch.tensor([[2.0, 0.0], [0.0, 0.5]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    p = [1 / (1 + math.exp(-s)) for s in (2.0, -1.2, 0.0, 1.6)]
    cost = [-((1 - one) ** 3) * math.log(one) for one in p]
    wanted = 2 * (0.3 * (cost[0] + cost[3]) + 0.7 * (cost[1] + cost[2])) / 2
    assert float(FocalContrastive(0.5, 0.3, 3.0)(image, text)) == pytest.approx(wanted, rel=1e-5)


def test_far_scores_are_finite_and_learn() -> None:
    scores = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    loss = focal_costs(scores, torch.arange(2), 0.5, 1.0).sum()
    (slope,) = torch.autograd.grad(loss, scores)
    assert loss.isfinite()
    assert float(slope[1, 1]) == pytest.approx(-1.0), "a pair that is said to be none pulls with all its weight"
    assert float(slope[0].abs().sum()) < 1e-6, "what is answered well does not"


def test_dito_takes_the_same_loss_over() -> None:
    draw = torch.Generator().manual_seed(0)
    image, text = torch.randn(5, 4, generator=draw), torch.randn(5, 4, generator=draw)
    assert float(DITO(loss="focal")(image, text)) == pytest.approx(float(FocalContrastive()(image, text)), rel=1e-6)
    assert float(DITO()(image, text)) == pytest.approx(float(CLIP(temperature=0.07)(image, text)), rel=1e-6)


@pytest.mark.parametrize("kind", [FocalContrastive, DITO])
def test_the_scale_begins_and_ends_where_it_is_said(kind: type[FocalContrastive | DITO]) -> None:
    state, one = kind(temperature=0.5, max_scale=4.0).state(), torch.ones(1)
    with torch.no_grad():
        assert float(state(one)) == pytest.approx(2.0)
        for parameter in state.parameters():
            parameter += 10.0
        state.hold()
        assert float(state(one)) == pytest.approx(4.0)
