"""Mean intersection over union with bootstrap intervals and controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..studies.bootstrap import Paired, paired
from .reader import best_classes

N_DRAWS = 1000
N_SHUFFLES = 20
N_RANDOM = 5


def pixel_confusion(truth: np.ndarray, mask: np.ndarray, k: int) -> Int[Tensor, "k k1"]:
    """Return the confusion matrix of a picture, with a last column for unnamed pixels."""
    counts = truth < k
    named = np.minimum(mask[counts], k).astype(np.int64)
    flat = np.bincount(truth[counts].astype(np.int64) * (k + 1) + named, minlength=k * (k + 1))
    return torch.from_numpy(flat.reshape(k, k + 1))


def sums(confusions: Int[Tensor, "n k k1"]) -> Float[Tensor, "n m"]:
    """Return the intersection, union and true pixels of each class in each picture."""
    k = confusions.shape[1]
    own, table = confusions[:, :, :k].diagonal(dim1=1, dim2=2), confusions.double()
    true, named = table.sum(2), table[:, :, :k].sum(1)
    return torch.cat([own.double(), true + named - own, true], 1)


def mean_iou(summed: Float[Tensor, "*n m"]) -> Float[Tensor, "*n"]:
    """Compute the mean intersection over union of the classes that occur, from the result of :func:`sums`."""
    own, union, true = summed.unflatten(-1, (3, -1)).unbind(-2)
    is_there = true > 0
    return (own / union.clamp(min=1e-12) * is_there).sum(-1) / is_there.sum(-1).clamp(min=1)


def compared(arms: Sequence[Int[Tensor, "n k k1"]], seed: int) -> Paired:
    """Compare the mean intersection over union of methods by a paired bootstrap."""
    return paired(torch.stack([sums(one) for one in arms], 1), mean_iou, n_draws=N_DRAWS, seed=seed)


def per_class(confusions: Int[Tensor, "n k k1"], classes: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Return the intersection over union of each class with its interval."""
    each = sums(confusions).unflatten(1, (3, -1)).transpose(1, 2)
    drawn = paired(each, lambda s: s[..., 0] / s[..., 1].clamp(min=1e-12), n_draws=N_DRAWS, seed=seed)
    true, rows = each[:, :, 2], []
    for i, label in enumerate(classes):
        there = bool(true[:, i].any())
        iou = {"iou": float(drawn.values[i]), "interval": list(drawn.interval(i))} if there else {}
        share = float(true[:, i].sum() / true.sum().clamp(min=1))
        row = {"label": label, "iou": None, "interval": None, "share": share, "n_pictures": int((true[:, i] > 0).sum())}
        rows.append(row | iou)
    return rows


def accuracy(confusions: Int[Tensor, "n k k1"]) -> float:
    table = confusions.sum(0).double()
    return float(table.diagonal().sum() / table.sum().clamp(min=1))


def shuffled(confusions: Int[Tensor, "n k k1"], seed: int, n: int = N_SHUFFLES) -> list[Int[Tensor, "n k k1"]]:
    """Return ``n`` controls in which each class name is exchanged for another."""
    generator, k = torch.Generator().manual_seed(seed), confusions.shape[1]
    found = []
    for _ in range(n):
        order = exchanged(k, generator)
        found.append(confusions[:, :, torch.cat([order, torch.tensor([k])])])
    return found


def exchanged(k: int, generator: torch.Generator) -> Int[Tensor, " k"]:
    """Return a random permutation of ``k`` positions in which no position stays the same."""
    order = torch.randperm(k, generator=generator)
    while bool((order == torch.arange(k)).any()):
        order = torch.randperm(k, generator=generator)
    return order


def commonest(confusions: Int[Tensor, "n k k1"]) -> Int[Tensor, "n k k1"]:
    """Return the confusion matrices of a control that predicts the most frequent class everywhere."""
    always = torch.zeros_like(confusions)
    always[:, :, int(confusions.sum((0, 2)).argmax())] = confusions.sum(2)
    return always


def cell_counts(truth: np.ndarray, k: int, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel counts of each grid cell, ``(h, w, k)`` per class and ``(h, w, 1)`` in all."""
    (high, wide), (h, w) = truth.shape, grid
    cell = (np.arange(high) * h // high)[:, None] * w + np.arange(wide) * w // wide
    counts = truth < k
    flat = np.bincount(cell[counts] * k + truth[counts], minlength=h * w * k)
    return flat.reshape(h, w, k), np.bincount(cell.ravel(), minlength=h * w).reshape(h, w, 1)


def ceiling(truth: np.ndarray, k: int, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return the best possible mask at the resolution of the grid."""
    high, wide = truth.shape
    parts = torch.from_numpy(cell_counts(truth, k, grid)[0]).float()
    shares = (parts / parts.sum(2, keepdim=True).clamp(min=1)).permute(2, 0, 1)
    best = best_classes(shares, size)[0].numpy()
    return best[np.arange(high) * size[0] // high][:, np.arange(wide) * size[1] // wide]
