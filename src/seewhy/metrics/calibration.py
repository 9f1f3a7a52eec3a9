"""Expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Bin:
    """A confidence bin: mean confidence, accuracy and number of predictions."""

    confidence: float
    accuracy: float
    n: int


def reliability(confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"], n_bins: int = 15) -> list[Bin]:
    """Group predictions into equal-width bins of confidence, without empty bins."""
    place = (confidence * n_bins).long().clamp(0, n_bins - 1)
    each = [place == b for b in place.unique().tolist()]
    return [Bin(float(confidence[i].mean()), float(right[i].float().mean()), int(i.sum())) for i in each]


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error: the mean of |confidence − accuracy|, weighted by the size of the bins."""
    n = sum(b.n for b in bins)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in bins) / n if n else 0.0


def accuracy_interval(right: Bool[Tensor, " n"], groups: Int[Tensor, " n"] | None = None) -> tuple[float, float]:
    """Return the 95 % Wilson interval of an accuracy.

    With ``groups``, pictures of the same object count as correlated: the interval uses the effective sample size, ``n``
    divided by the design effect (Kish 1965).

    >>> [round(end, 3) for end in accuracy_interval(torch.ones(24, dtype=torch.bool), torch.arange(24) // 8)]
    [0.439, 1.0]
    """
    low, high = wilson(float(right.double().mean()), _worth(right.double(), groups), 1.959964)
    return max(0.0, low), min(1.0, high)


def wilson(share: Any, n: Any, z: float) -> tuple[Any, Any]:
    """Return Wilson's interval of ``z`` standard errors; ``share`` and ``n`` are numbers, arrays or tensors."""
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _worth(right: Float[Tensor, " n"], groups: Int[Tensor, " n"] | None) -> float:
    """Return the effective sample size."""
    n, share = len(right), float(right.mean())
    if groups is None:
        return n
    number = groups.unique(return_inverse=True)[1]
    sums = torch.zeros(int(number.max()) + 1, dtype=right.dtype).index_add_(0, number, right - share)
    n_groups = len(sums)
    if n_groups < 2 or share in (0.0, 1.0):
        return n_groups
    effect = float(sums.square().sum()) * n_groups / (n_groups - 1) / (n * share * (1 - share))
    return n / max(1.0, effect)
