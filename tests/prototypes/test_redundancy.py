"""Prototypes that say the same are found; those that differ in one respect are not."""

from __future__ import annotations

import torch

from seewhy.prototypes.bank import redundant

TWINS = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.02], [0.0, 1.0, 0.0]])
SAME = [[1, 2, 3]] * 3


def test_twins_are_one_whatever_their_length() -> None:
    assert redundant(TWINS, SAME) == [(0, 1), (2,)]


def test_other_pictures_make_another_prototype() -> None:
    assert redundant(TWINS, [[1, 2, 3], [4, 5, 6], [1, 2, 3]]) == [(0,), (1,), (2,)]
    assert redundant(TWINS, [[1, 2, 3], [4, 5, 6], [1, 2, 3]], overlap=0) == [(0, 1), (2,)]
    # two of four pictures in common are one half
    assert redundant(TWINS, [[1, 2, 3], [2, 3, 4], [9]]) == [(0, 1), (2,)]


def test_other_influences_make_another_prototype() -> None:
    influences = torch.tensor([[0.3, 0.0], [0.0, 0.3], [0.3, 0.0]])
    assert redundant(TWINS, SAME, influences) == [(0,), (1,), (2,)]
    assert redundant(TWINS, SAME, influences * 0.3) == [(0, 1), (2,)]
    # One influence that is equal does not make up for one that is not.
    assert redundant(TWINS, SAME, torch.tensor([[0.3, 0.0], [0.3, 0.3], [0.3, 0.0]])) == [(0,), (1,), (2,)]


def test_the_first_leads_and_chains_do_not_grow() -> None:
    """The third is like the second but not like the first, so it leads a group of its own."""
    angle = torch.tensor([0.0, 0.25, 0.5])
    vectors = torch.stack([angle.cos(), angle.sin()], 1)
    assert redundant(vectors, SAME, cosine=0.96) == [(0, 1), (2,)]


def test_nothing_gives_nothing() -> None:
    assert redundant(torch.zeros(0, 3), []) == []
