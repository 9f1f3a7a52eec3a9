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
    n, height, width = inside.shape
    # Runs of pixels within a row stand for their pixels: there are hundreds of times fewer.
    edges = np.diff(np.pad(inside.numpy(), ((0, 0), (0, 0), (1, 1))).astype(np.int8), axis=2)
    line, start = np.nonzero(edges.reshape(n * height, width + 1) == 1)
    end = np.nonzero(edges.reshape(n * height, width + 1) == -1)[1]
    label = _connected(*_neighbours(line, start, end, height, width + 2), len(line))
    sizes = np.bincount(label, weights=end - start, minlength=len(line))
    picture, row = line // height, line % height
    boxes = np.zeros((n, 4), np.int64)
    for i in np.unique(picture):
        runs = np.flatnonzero(picture == i)
        piece = runs[label[runs] == runs[sizes[runs].argmax()]]
        boxes[i] = start[piece].min(), row[piece].min(), end[piece].max(), row[piece].max() + 1
    return torch.from_numpy(boxes)


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


def box_iou(boxes: Int[Tensor, "n 4"], other: Int[Tensor, 4]) -> Float[Tensor, " n"]:
    """Intersection over union."""
    corner = torch.minimum(boxes[:, 2:], other[2:]) - torch.maximum(boxes[:, :2], other[:2])
    shared = corner.clamp(min=0).prod(1).float()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (other[2:] - other[:2]).prod()
    return shared / (areas - shared).clamp(min=1)
