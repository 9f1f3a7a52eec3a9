"""Strategies that choose what to label next, against their authors' code and against what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seewhy.errors import InputError
from seewhy.studies.inspection.label_next import (
    STRATEGIES,
    Pool,
    badge,
    core_set,
    margin,
    of_clusters,
    strategy,
    typical,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/label_next.json").read_text())
POOL = Pool(*(torch.tensor(GOLDEN[name]) for name in ("features", "probabilities", "labelled")))


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(pool: Pool) -> Tensor:
    """What the likeliest class as label gives the last layer, written out."""
    p = pool.probabilities.double()
    slope = p - torch.nn.functional.one_hot(p.argmax(1), p.shape[1])
    return (slope[:, :, None] * pool.features.double()[:, None]).flatten(1)


def test_core_set_chooses_as_the_code_of_badges_authors() -> None:
    assert core_set(POOL, 12, draws()).tolist() == GOLDEN["core-set"]


def test_typical_chooses_as_the_authors_code_does_within_the_same_clusters() -> None:
    assert of_clusters(POOL, torch.tensor(GOLDEN["typical"]["clusters"]), 9).tolist() == GOLDEN["typical"]["chosen"]


def test_the_gradients_are_as_far_from_each_other_as_in_badges_code() -> None:
    g = gradients(POOL)
    far = torch.cdist(g, g[GOLDEN["badge"]["given"]], compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    assert torch.allclose(far, torch.tensor(GOLDEN["badge"]["distances"]).double(), atol=1e-5)
    assert int(badge(POOL, 1, draws())[0]) == GOLDEN["badge"]["first"] == int(g.norm(dim=1).argmax())


def test_badge_draws_by_the_squared_distance_of_written_out_gradients() -> None:
    g, how = gradients(POOL), draws(3)
    chosen = [int(g.norm(dim=1).argmax())]
    while len(chosen) < 8:
        far = torch.cdist(g, g[chosen], compute_mode="donot_use_mm_for_euclid_dist").amin(1).square()
        chosen.append(int(torch.multinomial(far, 1, generator=how)))
    assert badge(POOL, 8, draws(3)).tolist() == chosen


def test_margin_takes_the_closest_calls_first() -> None:
    two = POOL.probabilities.sort(dim=1, descending=True).values
    gap = (two[:, 0] - two[:, 1])[margin(POOL, 60, draws())]
    assert bool((gap.diff() >= 0).all())


def test_typical_takes_the_middle_of_the_group_that_has_no_label() -> None:
    left, right = torch.randn(20, 2, generator=draws()) / 20, torch.randn(20, 2, generator=draws(1)) / 20 + 5
    pool = Pool(torch.cat([left, right]), torch.full((40, 2), 0.5), left[:1])
    first = int(typical(pool, 1, draws())[0])
    middle = (right - right.mean(0)).norm(dim=1)
    assert first >= 20
    assert float(middle[first - 20]) <= float(middle.median())


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [1, 7, 60, 100])
def test_every_strategy_chooses_so_many_of_the_pool_and_none_twice(name: str, n: int) -> None:
    chosen = strategy(name)(POOL, n, draws()).tolist()
    assert len(chosen) == len(set(chosen)) == min(n, 60)
    assert chosen == strategy(name)(POOL, n, draws()).tolist()
    assert 0 <= min(chosen) <= max(chosen) < 60


@pytest.mark.parametrize("name", STRATEGIES)
def test_pictures_that_are_all_alike_and_without_any_label_are_chosen_from_too(name: str) -> None:
    pool = Pool(torch.ones(9, 3) / 3**0.5, torch.full((9, 2), 0.5), torch.empty(0, 3))
    assert sorted(strategy(name)(pool, 9, draws()).tolist()) == list(range(9))


def test_an_unknown_strategy_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match=r"'entropy' is no strategy. Expected margin, core-set, badge"):
        strategy("entropy")
