"""The base of objectives that compare the same spot of a picture in two views of it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...errors import InputError
from .pictures import PictureObjective


class Dense(PictureObjective):
    """Cells of two views that show the same spot must agree.

    Class attributes:
        cell_weight: of cells.
        instance_weight: of whole views beside cells.
        momentum: how slowly the branch that is followed moves, at first.
    """

    cell_weight: float = 1.0
    instance_weight: float = 0.0
    momentum: float = 0.99

    @abstractmethod
    def state(self, width: int) -> nn.Module:
        """What is learnt of the objective itself, for cells of so many numbers, new."""

    def __call__(
        self,
        first: Float[Tensor, "b d h w"],
        second: Float[Tensor, "b d h w"],
        boxes: Float[Tensor, "2 b 4"],
        flipped: Bool[Tensor, "2 b"],
        state: nn.Module | None = None,
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
            x, y = (side if side.dtype == torch.float64 else side.float() for side in (first, second))
            return self.loss(x, y, boxes.to(x), flipped, new)

    @abstractmethod
    def loss(
        self,
        first: Float[Tensor, "b d h w"],
        second: Float[Tensor, "b d h w"],
        boxes: Float[Tensor, "2 b 4"],
        flipped: Bool[Tensor, "2 b"],
        state: nn.Module,
    ) -> Float[Tensor, ""]:
        """The number to make small."""

    @abstractmethod
    def whole(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """The number to make small of whole views: the one that learns, and the one that is followed."""


def centres(
    boxes: Float[Tensor, "v b 4"], flipped: Bool[Tensor, "v b"], height: int, width: int
) -> Float[Tensor, "v b cells 2"]:
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


def apart(
    boxes: Float[Tensor, "2 b 4"], flipped: Bool[Tensor, "2 b"], height: int, width: int
) -> Float[Tensor, "b cells cells"]:
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
