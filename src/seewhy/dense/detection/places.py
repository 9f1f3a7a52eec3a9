"""The windows of a picture, how far they overlap with what is there, and what brings one box to another."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

STEP = 0.25
"""Of a window's own width and height, to the next of its shape."""
FINEST = 0.5
"""Cells from a window to the next at least."""
CHUNK = 1024
"""Windows whose overlaps are in memory at once."""


def common_shapes(sizes: Float[Tensor, "n 2"], n: int, seed: int, steps: int = 25) -> Float[Tensor, "m 2"]:
    """Widths and heights that stand for all: k-means on their logarithms (YOLOv2, by overlap)."""
    points = sizes.double().log()
    distinct = points.unique(dim=0)
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))[:n]
    centres = distinct[order]
    for _ in range(steps):
        own = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, own, points)
        counts = torch.bincount(own, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres.exp().float()


class Lattice(NamedTuple):
    """Every place of one shape: from where to where, along each side."""

    x: Float[Tensor, "i 2"]
    y: Float[Tensor, "j 2"]

    @property
    def boxes(self) -> Float[Tensor, "n 4"]:
        """Left, top, right, bottom of each, row by row."""
        i, j = torch.arange(len(self.x)).repeat(len(self.y)), torch.arange(len(self.y)).repeat_interleave(len(self.x))
        return torch.stack([self.x[i, 0], self.y[j, 0], self.x[i, 1], self.y[j, 1]], 1)


def lattices(shapes: Float[Tensor, "m 2"], grid: tuple[int, int]) -> list[Lattice]:
    """Every place of every shape in cells, within the map."""
    h, w = grid
    return [
        Lattice(*(_places(side, own) for side, own in ((w, width), (h, height))))
        for width, height in (shapes.clamp(max=1) * torch.tensor([w, h])).tolist()
    ]


def _places(side: int, own: float) -> Float[Tensor, "i 2"]:
    first = torch.linspace(0, side - own, max(1, round((side - own) / max(FINEST, STEP * own)) + 1))
    return torch.stack([first, first + own], 1)


def windows_of(shapes: Float[Tensor, "m 2"], grid: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """The same as boxes: left, top, right, bottom in cells."""
    return torch.cat([one.boxes for one in lattices(shapes, grid)])


def pieces_of(spans: Float[Tensor, "i 2"], n: int) -> Float[Tensor, "n i 2"]:
    """The ``n`` equal parts of each span."""
    step = (spans[:, 1] - spans[:, 0]) / n
    first = spans[:, 0] + step * torch.arange(n)[:, None]
    return torch.stack([first, first + step], 2)


def wider(spans: Float[Tensor, "i 2"], around: float, n: int) -> Float[Tensor, "i 2"]:
    """Each span with what is around it, within ``n`` cells."""
    margin = around * (spans[:, 1:] - spans[:, :1])
    return torch.cat([spans[:, :1] - margin, spans[:, 1:] + margin], 1).clamp(min=0, max=n)


def best_overlaps(boxes: Float[Tensor, "n 4"], there: Float[Tensor, "m 4"]) -> tuple[Tensor, Tensor]:
    """Of each box, the largest overlap with what is there, and with which; a part of the boxes at a time."""
    from torchvision.ops import box_iou

    if not len(there):
        return boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.long)
    parts = [box_iou(part, there).max(1) for part in boxes.split(CHUNK)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def offsets(boxes: Float[Tensor, "n 4"], targets: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """What brings a box to another: ``(dx / w, dy / h, log w'/w, log h'/h)`` (R-CNN, Girshick et al. 2013)."""
    middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    other, wanted = (targets[:, :2] + targets[:, 2:]) / 2, targets[:, 2:] - targets[:, :2]
    return torch.cat([(other - middle) / size, (wanted / size).log()], 1)


def moved(boxes: Float[Tensor, "n 4"], by: Float[Tensor, "n 4"], limit: float = 1.0) -> Float[Tensor, "n 4"]:
    """Boxes brought elsewhere by :func:`offsets`, none of which counts for more than ``limit``.

    Example:
        >>> a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.5, 0.0, 3.0, 1.0]])
        >>> moved(a, offsets(a, b)).tolist()
        [[0.5, 0.0, 3.0, 1.0]]
    """
    middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    by = by.clamp(-limit, limit)
    middle, half = middle + by[:, :2] * size, size * by[:, 2:].exp() / 2
    return torch.cat([middle - half, middle + half], 1)


def parts_of(
    boxes: Float[Tensor, "n 4"], n: int, around: float, grid: tuple[int, int]
) -> list[tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]]:
    """From where to where, across and down: the ``n`` by ``n`` equal parts of each box, row by row, and last the box
    with what is around it."""
    x, y = boxes[:, ::2], boxes[:, 1::2]
    found = [(column, row) for row in pieces_of(y, n) for column in pieces_of(x, n)]
    return [*found, (wider(x, around, grid[1]), wider(y, around, grid[0]))]
