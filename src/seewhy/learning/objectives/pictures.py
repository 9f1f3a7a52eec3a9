"""The bases of objectives that learn from pictures alone: views as vectors, and cells of views that show one spot."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...errors import InputError
from .base import Objective

Views = Float[Tensor, "b v d"]
Classes = Int[Tensor, " b"] | None
Maps = Float[Tensor, "b d h w"]
Boxes = Float[Tensor, "v b 4"]
"""Which part of the picture each view shows, as a batch of the training has it."""
Flipped = Bool[Tensor, "v b"]


class Beside(nn.Module):
    """What an objective learns or keeps beside the networks; the task owns it, and a checkpoint holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[str, Tensor] = {}

    def after_step(self) -> None:
        """Once the weights have moved."""


class PictureObjective(Objective):
    """Needs no words; ``seewhy pretrain`` takes class folders, a table or just pictures for it."""

    needs_labels: ClassVar[bool] = False
    n_views: int = 2
    momentum: float = 0.99

    @property
    def slow_views(self) -> int:
        """How many of a picture's views, the last ones, the slow copy sees; 0 where there is none."""
        return 0


class Vectors(PictureObjective):
    """Sees each view of a picture as one vector; of any length, unless the objective says otherwise."""

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        """What is learnt or kept beside the networks, new, for vectors so wide and a training so long."""
        return Beside()

    def __call__(
        self,
        vectors: Views,
        labels: Classes = None,
        *,
        state: Beside | None = None,
        slow: Float[Tensor, "b s d"] | None = None,
        index: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """The number to make small, checked."""
        n = len(vectors)
        fits = vectors.shape[0] * vectors.shape[1] > 1 and (labels is None or len(labels) == n)
        if not fits or (labels is None and self.needs_labels):
            given = "no labels" if labels is None else f"{len(labels)} labels"
            raise InputError(
                f"{self.name} was given vectors of the shape {tuple(vectors.shape)} and {given}. At least two views in "
                "all, and a label for each picture where it needs them, were expected. Give a larger batch."
            )
        if state is None:
            n_classes = 0 if labels is None else int(labels.max()) + 1
            state = self.state(vectors.shape[2], n_classes, n).to(vectors.device).requires_grad_(False)
        if slow is None and self.slow_views:
            slow = vectors[:, -self.slow_views :].detach()
        numbers = torch.arange(n, device=vectors.device) if index is None else index
        with torch.autocast(vectors.device.type, enabled=False):
            return self.loss(_precise(vectors), labels, state, None if slow is None else _precise(slow), numbers)

    @abstractmethod
    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """The number to make small."""


class Dense(PictureObjective):
    """Cells of two views that show the same spot must agree."""

    cell_weight: float = 1.0
    instance_weight: float = 0.0

    @abstractmethod
    def state(self, width: int) -> nn.Module:
        """What is learnt of the objective itself, for cells of so many numbers, new."""

    def __call__(
        self, first: Maps, second: Maps, boxes: Boxes, flipped: Flipped, state: nn.Module | None = None
    ) -> Float[Tensor, ""]:
        """The number to make small, checked; what views learn of one another is two of them, one each way."""
        b = len(first)
        if first.shape != second.shape or not b or boxes.shape != (2, b, 4) or flipped.shape != (2, b):
            raise InputError(
                f"{self.name} was given maps and boxes of the shapes {tuple(first.shape)}, {tuple(second.shape)}, "
                f"{tuple(boxes.shape)}. Two maps of each picture, alike, and a box of four numbers for each were "
                "expected. Give a batch of two views."
            )
        new = self.state(first.shape[1]).to(first.device).requires_grad_(False) if state is None else state
        with torch.autocast(first.device.type, enabled=False):
            x, y = _precise(first), _precise(second)
            return self.loss(x, y, boxes.to(x), flipped, new)

    @abstractmethod
    def loss(self, first: Maps, second: Maps, boxes: Boxes, flipped: Flipped, state: nn.Module) -> Float[Tensor, ""]:
        """The number to make small."""

    @abstractmethod
    def whole(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """The number to make small of whole views: the one that learns, and the one that is followed."""


def _precise(vectors: Tensor) -> Tensor:
    return vectors if vectors.dtype == torch.float64 else vectors.float()
