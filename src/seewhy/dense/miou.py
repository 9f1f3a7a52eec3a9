"""Intersection over union of classes, with intervals over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..studies.bootstrap import Paired, paired

N_DRAWS = 1000


def confusion(truth: np.ndarray, found: np.ndarray, k: int) -> Int[Tensor, "k k1"]:
    """Pixels by true class and by class found; the last column is of those that were given no name.

    Args:
        truth: places among ``k`` classes; others count for nothing.
        found: the same.

    Example:
        >>> confusion(np.array([0, 1, 1, 255]), np.array([0, 0, 255, 1]), 2).tolist()
        [[1, 0, 0], [1, 0, 1]]
    """
    counts = truth < k
    named = np.minimum(found[counts], k).astype(np.int64)
    flat = np.bincount(truth[counts].astype(np.int64) * (k + 1) + named, minlength=k * (k + 1))
    return torch.from_numpy(flat.reshape(k, k + 1))


def sums(confusions: Int[Tensor, "n k k1"]) -> Float[Tensor, "n m"]:
    """Of each picture: intersections, unions, true pixels, class after class."""
    k = confusions.shape[1]
    own, table = confusions[:, :, :k].diagonal(dim1=1, dim2=2), confusions.double()
    true, named = table.sum(2), table[:, :, :k].sum(1)
    return torch.cat([own.double(), true + named - own, true], 1)


def mean_iou(summed: Float[Tensor, "*n m"]) -> Float[Tensor, "*n"]:
    """The mean over classes that have a true pixel, as :func:`sums` lays them out.

    Example:
        >>> table = torch.tensor([[[2, 0, 0], [1, 1, 0]]])
        >>> round(float(mean_iou(sums(table))[0]), 4)
        0.5833
    """
    own, union, true = summed.unflatten(-1, (3, -1)).unbind(-2)
    is_there = true > 0
    return (own / union.clamp(min=1e-12) * is_there).sum(-1) / is_there.sum(-1).clamp(min=1)


def compared(arms: Sequence[Int[Tensor, "n k k1"]], seed: int) -> Paired:
    """Mean intersection over union of several ways on the same pictures, resampled together."""
    return paired(torch.stack([sums(one) for one in arms], 1), mean_iou, n_draws=N_DRAWS, seed=seed)


def per_class(confusions: Int[Tensor, "n k k1"], classes: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Each class's intersection over union with its interval; ``None`` where no picture has a pixel of it."""
    each = sums(confusions).unflatten(1, (3, -1)).transpose(1, 2)
    found = paired(each, lambda s: s[..., 0] / s[..., 1].clamp(min=1e-12), n_draws=N_DRAWS, seed=seed)
    true = each[:, :, 2]
    rows = []
    for i, label in enumerate(classes):
        there = bool(true[:, i].any())
        rows.append(
            {
                "label": label,
                "iou": float(found.values[i]) if there else None,
                "interval": list(found.interval(i)) if there else None,
                "share": float(true[:, i].sum() / true.sum().clamp(min=1)),
                "n_pictures": int((true[:, i] > 0).sum()),
            }
        )
    return rows


def accuracy(confusions: Int[Tensor, "n k k1"]) -> float:
    """Part of the pixels that are right."""
    table = confusions.sum(0).double()
    return float(table.diagonal().sum() / table.sum().clamp(min=1))
