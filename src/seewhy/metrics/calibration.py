"""Expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Bin:
    """Decisions of about the same confidence: do they hold as often as they claim?"""

    confidence: float
    accuracy: float
    n: int


def reliability(confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"], n_bins: int = 15) -> list[Bin]:
    """Decisions in equal-width bins of confidence, empty bins left out."""
    place = (confidence * n_bins).long().clamp(0, n_bins - 1)
    found = []
    for b in range(n_bins):
        inside = place == b
        if inside.any():
            found.append(Bin(float(confidence[inside].mean()), float(right[inside].float().mean()), int(inside.sum())))
    return found


def calibration_error(bins: list[Bin]) -> float:
    """Mean gap between confidence and accuracy, weighted by the number of decisions; 0 is perfect, 1 the worst."""
    n = sum(b.n for b in bins)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in bins) / n if n else 0.0


def accuracy_interval(right: Bool[Tensor, " n"]) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): it has a width where all are right, and where none is.

    Example:
        >>> [round(end, 3) for end in accuracy_interval(torch.ones(24, dtype=torch.bool))]
        [0.862, 1.0]
    """
    n, share, z2 = len(right), float(right.double().mean()), 1.959964**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
