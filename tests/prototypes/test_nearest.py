"""The order in which patches are looked through."""

from __future__ import annotations

import pytest
import torch

from seewhy.prototypes.bank import Patches
from seewhy.prototypes.nearest import _descending


@pytest.mark.parametrize("first", [1, 3, 8, 40, 100])
def test_patches_come_in_order_ties_by_place_however_many_are_sorted_first(first: int) -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(first)).round()
    assert list(_descending(values, first)) == values.argsort(descending=True, stable=True).tolist()


def test_shown_patches_are_of_different_pictures_without_copies_and_without_those_left_out() -> None:
    """Picture 1 is nearly picture 0, picture 3 is left out; each picture has two patches."""
    pooled = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [1, 0.01, 0], [0, 1, 0], [0, 0, 1]]), dim=1)
    owner, boxes = torch.arange(8) // 2, torch.zeros(8, 4)
    bank = Patches((), pooled, owner, boxes, boxes.long())
    order = [6, 1, 0, 2, 3, 5, 4, 7]
    assert bank.distinct(order, {3}, 4, 0.98) == [1, 5]
    assert bank.distinct(order, {3}, 1, 0.98) == [1]
    assert bank.distinct(order, set(), 4, 0.98) == [6, 1, 5]
    assert bank.distinct(order, set(), 9, 2.0) == [6, 1, 2, 5]  # even then one patch of a picture
