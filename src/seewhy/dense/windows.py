"""A picture cut into windows that overlap, what was found in them put together again, and means over boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..types import Crop

ABSENT = -100.0
"""The cosine of a class that is taken to be absent, as in MaskCLIP's released code."""
OVERLAP, STRETCH = 0.25, 1.5
"""Part of a window that the next one shows as well, and how far its shape may be from the network's input."""
LONGEST, MOST = 64, 512
"""Times its short side that the long side of a picture may be, and windows on one picture at most."""


@dataclass(frozen=True)
class Windows:
    """Where the windows of a picture lie, in cells of the whole."""

    cells: tuple[int, int]
    n: tuple[int, int]

    @classmethod
    def over(cls, size: tuple[int, int], cells: tuple[int, int], along: int) -> Windows:
        """Those of a picture of this width and height, so many along its short side.

        >>> Windows.over((640, 480), (14, 14), 1).n, Windows.over((1920, 1080), (14, 14), 1).n
        ((1, 1), (1, 2))
        >>> Windows.over((480, 640), (7, 7), 2).n
        (2, 2)
        """
        width, height = size
        short = 1 + (along - 1) * (1 - OVERLAP)
        needed = short * max(size) / min(size) / STRETCH
        longer = max(along, 1 + math.ceil((needed - 1) / (1 - OVERLAP) - 1e-9))
        if along > 1 and along * longer > MOST:
            return cls.over(size, cells, along - 1)
        return cls(cells, (longer, along) if height > width else (along, longer))

    @property
    def strides(self) -> tuple[int, int]:
        """Cells from one window to the next."""
        down, across = (max(1, round(c * (1 - OVERLAP))) for c in self.cells)
        return down, across

    @property
    def whole(self) -> tuple[int, int]:
        """``(h, w)`` of the whole picture in cells."""
        h, w = (c + (n - 1) * s for c, n, s in zip(self.cells, self.n, self.strides, strict=True))
        return h, w

    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each window in cells, row by row."""
        down, across = self.strides
        return [(i * down, j * across) for i in range(self.n[0]) for j in range(self.n[1])]

    def crops(self) -> list[Crop]:
        """The windows as parts of the picture."""
        (high, wide), (h, w) = self.whole, self.cells
        return [Crop((x / wide, y / high, (x + w) / wide, (y + h) / high)) for y, x in self.corners()]

    def merged(self, maps: Float[Tensor, "n k h w"]) -> Float[Tensor, "k H W"]:
        """The maps of the windows as one of the picture: where they overlap, their mean."""
        if len(maps) == 1:
            return maps[0]
        times = maps.shape[2] // self.cells[0]
        (high, wide), (h, w) = ([times * n for n in size] for size in (self.whole, self.cells))
        total, count = maps.new_zeros(maps.shape[1], high, wide), maps.new_zeros(1, high, wide)
        for one, corner in zip(maps, self.corners(), strict=True):
            y, x = (times * n for n in corner)
            total[:, y : y + h, x : x + w] += one
            count[:, y : y + h, x : x + w] += 1
        return total / count


def bilinear(n: int, m: int) -> Float[Tensor, "m n"]:
    """What takes ``n`` values to ``m`` places between them, as ``interpolate(align_corners=False)`` does.

    >>> bilinear(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    place = ((torch.arange(m, dtype=torch.float64) + 0.5) * n / m - 0.5).clamp(0, n - 1)
    below = place.floor().long()
    share = place - below
    matrix = torch.zeros(m, n, dtype=torch.float64)
    rows = torch.arange(m)
    matrix[rows, below] += 1 - share
    matrix[rows, (below + 1).clamp(max=n - 1)] += share
    return matrix.float()


def best_classes(
    scores: Float[Tensor, "k h w"],
    size: tuple[int, int],
    scale: float | None = None,
    strip: int = 64,
    *,
    alone: bool = False,
) -> tuple[UInt8[Tensor, "y x"], Float[Tensor, "y x"] | None]:
    """The best class at every pixel, its score bilinear between cells; a strip of rows at a time."""
    height, width = size
    across = torch.einsum("khw,xw->khx", scores, bilinear(scores.shape[2], width).to(scores))
    down = bilinear(scores.shape[1], height).to(scores)
    best = torch.empty(height, width, dtype=torch.uint8)
    likely = None if scale is None else torch.empty(height, width)
    for rows in torch.arange(height).split(strip):
        between = torch.einsum("khx,yh->kyx", across, down[rows])
        top, index = between.max(0)
        best[rows] = index.to(torch.uint8)
        if likely is not None and scale is not None:
            own = (scale * top).sigmoid() if alone else 1 / (scale * (between - top)).exp().sum(0)
            likely[rows] = own
    return best, likely


def box_means(grid: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n d"]:
    """The mean of a map over each box, each cell by the part of it that is covered.

    >>> grid = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> box_means(grid, torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.5, 0.0, 1.5, 1.0]])).flatten().tolist()
    [2.5, 1.5]
    """
    d, h, w = grid.shape
    table = grid.new_zeros(d, h + 1, w + 1, dtype=torch.float64)
    table[:, 1:, 1:] = grid.double().cumsum(1).cumsum(2)

    def up_to(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "d n"]:
        """The sum of all that is above and left of a place: bilinear between the corners of cells."""
        col, row = x.floor().clamp(0, w - 1).long(), y.floor().clamp(0, h - 1).long()
        a, b = x - col, y - row
        upper = table[:, row, col] * (1 - a) + table[:, row, col + 1] * a
        lower = table[:, row + 1, col] * (1 - a) + table[:, row + 1, col + 1] * a
        return upper * (1 - b) + lower * b

    left, top, right, bottom = boxes.double().unbind(1)
    total = up_to(right, bottom) - up_to(left, bottom) - up_to(right, top) + up_to(left, top)
    return (total / ((right - left) * (bottom - top))).T.to(grid.dtype)


def shares(spans: Float[Tensor, "*i 2"], n: int) -> Float[Tensor, "*i n"]:
    """What part of each span lies in each of ``n`` cells, so that means over boxes are two products.

    >>> shares(torch.tensor([[0.5, 2.5]]), 3).tolist()
    [[0.25, 0.5, 0.25]]
    """
    first = torch.arange(n)
    inside = torch.minimum(spans[..., 1:], first + 1.0) - torch.maximum(spans[..., :1], first.float())
    return inside.clamp(min=0) / (spans[..., 1:] - spans[..., :1])


def span_means(grid: Float[Tensor, "d h w"], x: Float[Tensor, "n 2"], y: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
    """As :func:`box_means`, of boxes from where to where across and down: two products, cheaper on small maps."""
    rows = torch.tensordot(shares(y, grid.shape[1]), grid, ([1], [1]))
    return torch.einsum("ndw,nw->nd", rows, shares(x, grid.shape[2]))
