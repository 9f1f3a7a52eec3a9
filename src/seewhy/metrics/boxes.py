"""From a map to a box: threshold, largest connected piece, its bounding box."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d


def largest_boxes(inside: Bool[Tensor, "n h w"]) -> Int[Tensor, "n 4"]:
    """``(left, top, right, bottom)``, right and bottom exclusive, of each mask's largest piece; zeros for none.

    Pixels that touch, also at a corner, belong together.
    """
    labels = _pieces(inside)
    n, height, width = inside.shape
    counts = torch.zeros(n, height * width + 1).scatter_add_(
        1, labels.flatten(1), torch.ones_like(labels.flatten(1), dtype=torch.float)
    )
    counts[:, 0] = 0
    largest = counts.argmax(1)[:, None, None]
    piece = (labels == largest) & inside
    rows, columns = piece.any(2).int(), piece.any(1).int()
    top, left = rows.argmax(1), columns.argmax(1)
    bottom, right = height - rows.flip(1).argmax(1), width - columns.flip(1).argmax(1)
    boxes = torch.stack([left, top, right, bottom], 1)
    return torch.where(piece.flatten(1).any(1)[:, None], boxes, torch.zeros_like(boxes))


def _pieces(inside: Bool[Tensor, "n h w"]) -> Int[Tensor, "n h w"]:
    """A number for every connected piece, 0 outside: the largest index spreads until nothing changes."""
    n, height, width = inside.shape
    labels = torch.arange(1.0, height * width + 1).reshape(1, height, width) * inside
    while True:
        spread = max_pool2d(labels[:, None], 3, 1, 1)[:, 0] * inside
        if torch.equal(spread, labels):
            return labels.long()
        # Each label is the index of a pixel of the same piece, whose own label is at least as large: jump there too.
        jumped = torch.cat([torch.zeros(n, 1, dtype=spread.dtype), spread.flatten(1)], 1)
        labels = jumped.gather(1, spread.flatten(1).long()).reshape(spread.shape)


def box_iou(boxes: Int[Tensor, "n 4"], other: Int[Tensor, 4]) -> Float[Tensor, " n"]:
    """Intersection over union."""
    corner = torch.minimum(boxes[:, 2:], other[2:]) - torch.maximum(boxes[:, :2], other[:2])
    shared = corner.clamp(min=0).prod(1).float()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (other[2:] - other[:2]).prod()
    return shared / (areas - shared).clamp(min=1)
