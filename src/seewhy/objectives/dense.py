"""The base of objectives that compare the same spot of a picture in two views of it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from .base import Objective


class Dense(Objective):
    """Cells of two views that show the same spot must agree."""

    def __call__(
        self,
        first: Float[Tensor, "b d h w"],
        second: Float[Tensor, "b d h w"],
        boxes: Float[Tensor, "2 b 4"],
        flipped: Bool[Tensor, "2 b"],
    ) -> Float[Tensor, ""]:
        """The number to make small, checked.

        Args:
            first: the map of each picture's first view.
            second: of its second.
            boxes: which part of the picture each view shows, as a batch of the training has it.
            flipped: whether it is mirrored.

        Raises:
            InputError: the maps are not alike, there are none, or boxes are missing.
        """
        b = len(first)
        if first.shape != second.shape or not b or boxes.shape != (2, b, 4) or flipped.shape != (2, b):
            raise InputError(
                f"{self.name} was given maps and boxes of the shapes {tuple(first.shape)}, {tuple(second.shape)}, "
                f"{tuple(boxes.shape)}. Two maps of each picture, alike, and a box of four numbers for each were "
                "expected. Give a batch of two views."
            )
        return self.loss(first, second, boxes, flipped)

    @abstractmethod
    def loss(
        self,
        first: Float[Tensor, "b d h w"],
        second: Float[Tensor, "b d h w"],
        boxes: Float[Tensor, "2 b 4"],
        flipped: Bool[Tensor, "2 b"],
    ) -> Float[Tensor, ""]:
        """The number to make small."""


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
