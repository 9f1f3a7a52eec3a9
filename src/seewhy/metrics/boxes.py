"""From a map to a box: threshold, largest connected piece, its bounding box."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def largest_boxes(inside: Bool[Tensor, "n h w"]) -> Int[Tensor, "n 4"]:
    """``(left, top, right, bottom)``, right and bottom exclusive, of each mask's largest piece; zeros for none.

    Pixels that touch, also at a corner, belong together. Of two equally large pieces the upper one counts.
    """
    n, height = inside.shape[:2]
    line, start, end, label = _runs(inside)
    sizes = np.bincount(label, weights=end - start, minlength=len(line))
    picture, row = line // height, line % height
    boxes = np.zeros((n, 4), np.int64)
    for i in np.unique(picture):
        runs = np.flatnonzero(picture == i)
        piece = runs[label[runs] == runs[sizes[runs].argmax()]]
        boxes[i] = start[piece].min(), row[piece].min(), end[piece].max(), row[piece].max() + 1
    return torch.from_numpy(boxes)


def pieces(inside: Bool[Tensor, "n h w"]) -> tuple[Int[Tensor, " m"], Int[Tensor, "m 4"]]:
    """Every connected piece of every mask: whose it is, and the box around it.

    Example:
        >>> pieces(torch.tensor([[[True, False, True]], [[False, True, True]]]))[1].tolist()
        [[0, 0, 1, 1], [2, 0, 3, 1], [1, 0, 3, 1]]
    """
    height = inside.shape[1]
    line, start, end, label = _runs(inside)
    first, index = np.unique(label, return_inverse=True)
    boxes = np.full((len(first), 4), np.iinfo(np.int64).max)
    boxes[:, 2:] = 0
    row = line % height
    np.minimum.at(boxes[:, 0], index, start)
    np.minimum.at(boxes[:, 1], index, row)
    np.maximum.at(boxes[:, 2], index, end)
    np.maximum.at(boxes[:, 3], index, row + 1)
    return torch.from_numpy(line[first] // height), torch.from_numpy(boxes)


def _runs(inside: Bool[Tensor, "n h w"]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels within a row: line, start, end, and the first run of the piece that each belongs to.

    They stand for their pixels: there are hundreds of times fewer.
    """
    n, height, width = inside.shape
    edges = np.diff(np.pad(inside.numpy(), ((0, 0), (0, 0), (1, 1))).astype(np.int8), axis=2)
    line, start = np.nonzero(edges.reshape(n * height, width + 1) == 1)
    end = np.nonzero(edges.reshape(n * height, width + 1) == -1)[1]
    return line, start, end, _connected(*_neighbours(line, start, end, height, width + 2), len(line))


def _neighbours(
    line: np.ndarray, start: np.ndarray, end: np.ndarray, height: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs that touch: one, and one in the next line of the same picture."""
    below = (line + 1) * stride
    first = np.searchsorted(line * stride + end, below + start, "left")
    last = np.searchsorted(line * stride + start, below + end, "right")
    count = np.where(line % height == height - 1, 0, np.maximum(last - first, 0))
    upper = np.repeat(np.arange(len(line)), count)
    return upper, np.arange(len(upper)) - np.repeat(count.cumsum() - count, count) + first[upper]


def _connected(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """For every run the first one of its piece."""
    label = np.arange(n)
    while True:
        least = np.minimum(label[a], label[b])
        spread = label.copy()
        for ends in (a, b, label[a], label[b]):
            np.minimum.at(spread, ends, least)
        # A label is a run of the same piece, whose own label is at most as large: jump there too.
        spread = spread[spread]
        if np.array_equal(spread, label):
            return label
        label = spread


def box_iou(boxes: Int[Tensor, "n 4"], other: Int[Tensor, " 4"]) -> Float[Tensor, " n"]:
    """Intersection over union."""
    corner = torch.minimum(boxes[:, 2:], other[2:]) - torch.maximum(boxes[:, :2], other[:2])
    shared = corner.clamp(min=0).prod(1).float()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (other[2:] - other[:2]).prod()
    return shared / (areas - shared).clamp(min=1)
