"""What is in a box: the encoder's map, averaged over the part of the picture that the box covers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def box_means(grid: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n d"]:
    """The mean of a map over each box, each cell by the part of it that is covered.

    ``∫ box grid / area``, exactly, from one table of sums (Crow 1984): cost ``d h w + 4 n d`` however large a box is.

    Example:
        >>> grid = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> box_means(grid, torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.5, 0.0, 1.5, 1.0]])).flatten().tolist()
        [2.5, 1.5]
    """
    d, h, w = grid.shape
    table = grid.new_zeros(d, h + 1, w + 1, dtype=torch.float64)
    table[:, 1:, 1:] = grid.double().cumsum(1).cumsum(2)
    left, top, right, bottom = boxes.double().unbind(1)
    total = _at(table, right, bottom) - _at(table, left, bottom) - _at(table, right, top) + _at(table, left, top)
    return (total / ((right - left) * (bottom - top))).T.to(grid.dtype)


def _at(table: Float[Tensor, "d y x"], x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "d n"]:
    """The sum of all that is above and left of a place: bilinear between the corners of cells."""
    col, row = x.floor().clamp(0, table.shape[2] - 2).long(), y.floor().clamp(0, table.shape[1] - 2).long()
    a, b = x - col, y - row
    upper = table[:, row, col] * (1 - a) + table[:, row, col + 1] * a
    lower = table[:, row + 1, col] * (1 - a) + table[:, row + 1, col + 1] * a
    return upper * (1 - b) + lower * b


def shares(spans: Float[Tensor, "*i 2"], n: int) -> Float[Tensor, "*i n"]:
    """What part of each span lies in each of ``n`` cells, so that means over boxes are two products.

    Example:
        >>> shares(torch.tensor([[0.5, 2.5]]), 3).tolist()
        [[0.25, 0.5, 0.25]]
    """
    first = torch.arange(n)
    inside = torch.minimum(spans[..., 1:], first + 1.0) - torch.maximum(spans[..., :1], first.float())
    return inside.clamp(min=0) / (spans[..., 1:] - spans[..., :1])


def span_means(grid: Float[Tensor, "d h w"], x: Float[Tensor, "n 2"], y: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
    """As :func:`box_means`, of boxes from where to where across and down: two products, cheaper on small maps.

    Example:
        >>> grid = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> span_means(grid, torch.tensor([[0.5, 1.5]]), torch.tensor([[0.0, 1.0]])).tolist()
        [[1.5]]
    """
    rows = torch.tensordot(shares(y, grid.shape[1]), grid, ([1], [1]))
    return torch.einsum("ndw,nw->nd", rows, shares(x, grid.shape[2]))
