"""Expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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


def bootstrap_interval(
    right: Bool[Tensor, " n"], n_draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean of 0s and 1s."""
    generator = torch.Generator().manual_seed(seed)
    values = right.float()
    draws = torch.randint(len(values), (n_draws, len(values)), generator=generator)
    means = values[draws].mean(1)
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return low, high
