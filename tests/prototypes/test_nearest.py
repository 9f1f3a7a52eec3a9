"""The order in which patches are looked through."""

from __future__ import annotations

import pytest
import torch

from seewhy.prototypes.nearest import _descending


@pytest.mark.parametrize("first", [1, 3, 8, 40, 100])
def test_patches_come_in_order_ties_by_place_however_many_are_sorted_first(first: int) -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(first)).round()
    assert list(_descending(values, first)) == values.argsort(descending=True, stable=True).tolist()
