"""Every registered way of finding likenesses, on a bank whose nearest patches are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seewhy.prototypes import Prototypes, prototypes
from seewhy.prototypes.bank import BankPicture, PatchBank, patch_vector
from tiny import noise

CELLS = [(0, 0), (5, 3), (7, 7)]
GRID = noise(1, 5)[0].reshape(-1, 8, 8)[:8]
POOLED = GRID.mean((1, 2))


def bank(n_pictures: int = 6) -> PatchBank:
    """Random pictures of two classes, two patches each; picture 2 holds the query's own cell (5, 3)."""
    rng = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(2 * n_pictures, 8, generator=rng), dim=1)
    vectors[5] = patch_vector(GRID, (5, 3))
    pooled = torch.nn.functional.normalize(torch.randn(n_pictures, 8, generator=rng), dim=1)
    return PatchBank(
        tuple(BankPicture(f"{i}.png", f"digest {i}", i % 2, b"") for i in range(n_pictures)),
        pooled,
        vectors,
        torch.arange(n_pictures).repeat_interleave(2),
        torch.zeros(2 * n_pictures, 4),
        torch.zeros(2 * n_pictures, 4, dtype=torch.long),
    )


@pytest.fixture(params=list(prototypes))
def method(request: pytest.FixtureRequest) -> Prototypes:
    return prototypes[request.param]()


def test_class_attributes_and_file_name() -> None:
    for name in prototypes:
        cls = prototypes[name]
        assert cls.name == name == cls.__module__.rpartition(".")[2]
        assert all(isinstance(getattr(cls, a), str) and getattr(cls, a) for a in ("paper", "needs", "cost"))
        assert cls.__doc__


def test_one_group_a_cell_nearest_first_and_repeatable(method: Prototypes) -> None:
    groups = method(bank(), GRID, POOLED, CELLS)
    assert len(groups) == len(CELLS)
    for group in groups:
        likeness = [m.similarity for m in group]
        assert likeness == sorted(likeness, reverse=True)
        assert all(-1 - 1e-6 <= s <= 1 + 1e-6 for s in likeness)
        assert all(0 <= m.patch < len(bank().vectors) for m in group)
    assert groups == method(bank(), GRID, POOLED, CELLS)
    assert [method(bank(), GRID, POOLED, [c])[0] for c in CELLS] == groups


def test_the_planted_cell_comes_first(method: Prototypes) -> None:
    best = method(bank(), GRID, POOLED, [(5, 3)])[0][0]
    assert best.patch == 5
    assert best.similarity == pytest.approx(1, abs=1e-6)


def test_the_query_itself_and_its_near_duplicates_are_never_shown(method: Prototypes) -> None:
    by_digest = method(bank(), GRID, POOLED, CELLS, digest="digest 2")
    twin = bank()
    twin.pooled[2] = torch.nn.functional.normalize(POOLED, dim=0)
    for groups in (by_digest, method(twin, GRID, POOLED, CELLS)):
        assert all(int(bank().owner[m.patch]) != 2 for group in groups for m in group)


def test_no_picture_twice_and_no_two_copies_of_one(method: Prototypes) -> None:
    known = bank()
    known.pooled[4] = known.pooled[2]
    for group in method(known, GRID, POOLED, CELLS):
        owners = [int(known.owner[m.patch]) for m in group]
        assert len(set(owners)) == len(owners)
        assert not {2, 4} <= set(owners)


def test_a_bank_of_the_query_alone_gives_nothing(method: Prototypes) -> None:
    known = bank(3)
    alone = replace(known, pictures=tuple(replace(p, digest="mine") for p in known.pictures))
    assert method(alone, GRID, POOLED, CELLS, digest="mine") == [[], [], []]
