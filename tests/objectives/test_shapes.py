"""The other base shapes: what they refuse, and where cells lie."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InputError
from seewhy.learning.objectives.contrastive import Learnt, Regional, Temperature
from seewhy.learning.objectives.pictures import Dense
from seewhy.learning.objectives.regional import centres


@dataclass(frozen=True)
class Words(Regional):
    name = "words"

    def state(self) -> Temperature:
        return Learnt(1.0, 10.0)

    def local_loss(self, regions: Tensor, words: Tensor, said: Tensor, state: nn.Module) -> Tensor:
        return said.float().mean() + 0 * sum(p.sum() for p in state.parameters())


@dataclass(frozen=True)
class Spots(Dense):
    name = "spots"

    def state(self, width: int) -> nn.Module:
        return nn.Linear(width, 1)

    def loss(self, first: Tensor, second: Tensor, boxes: Tensor, flipped: Tensor, state: nn.Module) -> Tensor:
        assert isinstance(state, nn.Linear)
        return first.mean() * state.in_features + 0 * state.weight.sum()

    def whole(self, first: Tensor, second: Tensor) -> Tensor:
        return first.mean()


def test_words_without_a_mask_are_all_said_and_a_new_state_is_not_learnt() -> None:
    found = Words().local(torch.ones(2, 4, 3), torch.ones(2, 5, 3))
    assert found.item() == 1.0
    assert not found.requires_grad


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        Words().local(torch.ones(2, 4, 3), torch.ones(2, 5, 3), torch.tensor([[True] * 5, [False] * 5]))
    assert str(caught.value) == (
        "words needs, for each picture, regions and at least one word of the same width, got shapes "
        "(2, 4, 3) (regions), (2, 5, 3) (words) and (2, 5) (mask)."
    )
    with pytest.raises(InputError) as caught:
        Spots()(torch.ones(0, 3, 4, 4), torch.ones(0, 3, 4, 4), torch.ones(2, 0, 4), torch.ones(2, 0).bool())
    assert str(caught.value) == (
        "spots needs two maps of the same shape, and a box of 4 numbers per view and picture, got "
        "shapes (0, 3, 4, 4) and (0, 3, 4, 4) (maps) and (2, 0, 4) (boxes)."
    )
    found = Spots()(*[torch.ones(2, 3, 4, 4)] * 2, torch.ones(2, 2, 4), torch.ones(2, 2).bool())
    assert (found.item(), found.requires_grad) == (3.0, False), "a new state is not learnt"


def test_the_same_spot_of_two_views_has_the_same_place() -> None:
    """A cut of the right half, and the whole mirrored: the cell at the right edge above."""
    boxes = torch.tensor([[[0.5, 0.0, 1.0, 0.5]], [[0.0, 0.0, 1.0, 1.0]]])
    found = centres(boxes, torch.tensor([[False], [True]]), 2, 4)
    assert found.shape == (2, 1, 8, 2)
    assert found[0, 0, 3].tolist() == pytest.approx([0.9375, 0.125])
    assert found[1, 0, 0].tolist() == pytest.approx([0.875, 0.25])
    assert found[1, 0, 7].tolist() == pytest.approx([0.125, 0.75])
