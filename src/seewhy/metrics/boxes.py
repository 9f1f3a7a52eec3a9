"""From a map to a box: threshold, largest connected piece, its bounding box."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def largest_boxes(inside: Bool[Tensor, "n h w"]) -> Int[Tensor, "n 4"]:
    """``(left, top, right, bottom)``, right and bottom exclusive, of each mask's largest piece; zeros for none.

    Pixels that touch, also at a corner, belong together. Of two equally large pieces the upper one counts.
    """
    owner, boxes, sizes = _pieces(inside)
    largest = np.zeros((len(inside), 4), np.int64)
    for i in np.unique(owner):
        mine = np.flatnonzero(owner == i)
        largest[i] = boxes[mine[sizes[mine].argmax()]]
    return torch.from_numpy(largest)


def pieces(inside: Bool[Tensor, "n h w"]) -> tuple[Int[Tensor, " m"], Int[Tensor, "m 4"]]:
    """Every connected piece of every mask: whose it is, and the box around it.

    Example:
        >>> pieces(torch.tensor([[[True, False, True]], [[False, True, True]]]))[1].tolist()
        [[0, 0, 1, 1], [2, 0, 3, 1], [1, 0, 3, 1]]
    """
    owner, boxes, _ = _pieces(inside)
    return torch.from_numpy(owner), torch.from_numpy(boxes)


def _pieces(inside: Bool[Tensor, "n h w"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each connected piece, in the order in which they begin: whose it is, the box around it, its pixels."""
    from scipy.ndimage import find_objects, label

    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True
    labels, n = label(inside.numpy(), touching)
    slices = find_objects(labels)
    owner = np.array([part.start for part, _, _ in slices], np.int64)
    boxes = np.array([[x.start, y.start, x.stop, y.stop] for _, y, x in slices], np.int64).reshape(n, 4)
    return owner, boxes, np.bincount(labels.ravel(), minlength=n + 1)[1:]


def box_iou(boxes: Int[Tensor, "n 4"], other: Int[Tensor, " 4"]) -> Float[Tensor, " n"]:
    """Intersection over union."""
    corner = torch.minimum(boxes[:, 2:], other[2:]) - torch.maximum(boxes[:, :2], other[:2])
    shared = corner.clamp(min=0).prod(1).float()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (other[2:] - other[:2]).prod()
    return shared / (areas - shared).clamp(min=1)
