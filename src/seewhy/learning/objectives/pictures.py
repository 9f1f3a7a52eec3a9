"""The bases of objectives that learn from pictures alone: views as vectors, and cells of views that show one spot."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

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
        if index is None:
            index = torch.arange(n, device=vectors.device)
        with torch.autocast(vectors.device.type, enabled=False):
            return self.loss(_precise(vectors), labels, state, None if slow is None else _precise(slow), index)

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


def contrast(vectors: Views, alike: Bool[Tensor, "b b"], temperature: float) -> Float[Tensor, ""]:
    """Each view must find those of pictures like its own among all others, on average over those (SupCon's outer form).

    ``-mean_i 1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))``; a view that nothing is like
    adds 0. ``alike`` says which pictures are like which, themselves included.
    """
    b, v, _ = vectors.shape
    flat = normalize(vectors, dim=2).flatten(0, 1)
    own = torch.eye(b * v, dtype=torch.bool, device=flat.device)
    scores = (flat @ flat.T / temperature).masked_fill(own, float("-inf"))
    right = alike.repeat_interleave(v, 0).repeat_interleave(v, 1) & ~own
    chance = scores.log_softmax(1).masked_fill(~right, 0.0)
    return -(chance.sum(1) / right.sum(1).clamp(min=1)).mean()


def centres(boxes: Boxes, flipped: Flipped, height: int, width: int) -> Float[Tensor, "v b cells 2"]:
    """Where the middle of each cell lies in the upright picture: x and y as fractions, cells row by row.

    Example:
        >>> box, mirrored = torch.tensor([[[0.0, 0.0, 1.0, 0.5]]]), torch.tensor([[True]])
        >>> [[round(v, 2) for v in cell] for cell in centres(box, mirrored, 1, 2)[0, 0].tolist()]
        [[0.75, 0.25], [0.25, 0.25]]
    """
    across = (torch.arange(width, device=boxes.device) + 0.5) / width
    down = (torch.arange(height, device=boxes.device) + 0.5) / height
    left, top, right, bottom = (boxes[..., i, None] for i in range(4))
    share = torch.where(flipped[..., None], 1 - across, across)
    x = (left + (right - left) * share)[:, :, None, :].expand(-1, -1, height, -1)
    y = (top + (bottom - top) * down)[:, :, :, None].expand(-1, -1, -1, width)
    return torch.stack([x, y], -1).flatten(2, 3)


def apart(boxes: Boxes, flipped: Flipped, height: int, width: int) -> Float[Tensor, "b cells cells"]:
    """How far the cells of a first view lie from those of a second, in diagonals of the larger cell of the two.

    Places are fractions of the picture's sides, so that a cell is as wide as it is high in a picture of any shape.

    Example:
        >>> boxes, flipped = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]] * 2), torch.tensor([[False], [True]])
        >>> [[round(v, 2) for v in row] for row in apart(boxes, flipped, 1, 2)[0].tolist()]
        [[0.45, 0.0], [0.0, 0.45]]
    """
    first, second = centres(boxes, flipped, height, width)
    cells = (boxes[..., 2:] - boxes[..., :2]) / boxes.new_tensor([width, height])
    diagonal = cells.norm(dim=-1).amax(0)
    return (first[:, :, None] - second[:, None]).norm(dim=-1) / diagonal[:, None, None]
