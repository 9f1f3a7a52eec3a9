"""Verdicts on claims: whether a difference is shown, from its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from .bootstrap import paired_means

Verdict = Literal["shown", "too small to tell", "not shown"]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval; as text ``0.712 (0.690 to 0.735)``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def rounded(self) -> list[float]:
        """Return ``[value, low, high]``, for the JSON."""
        return [round(v, 4) for v in (self.value, self.low, self.high)]


def judged(found: Interval, effect: float = 0.0) -> Verdict:
    """Return the verdict on a difference that a claim says is above 0.

    Args:
        found: the difference.
        effect: the paper's difference, in the same unit, or 0 if the paper has none; if the interval ends below
            ``effect``, the verdict is ``not shown``.

    >>> judged(Interval(0.1, -0.1, 0.3)), judged(Interval(0.01, -0.01, 0.03), effect=0.05)
    ('too small to tell', 'not shown')
    """
    return "shown" if found.low > 0 else "not shown" if found.high < effect else "too small to tell"


def mean_of(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean over pictures with its percentile bootstrap interval (2,000 resamples)."""
    found = paired_means(torch.tensor([list(values)], dtype=torch.double).T, seed=seed)
    return Interval(float(found.values[0]), *found.interval(0))


def lead(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of ``a − b`` over the same pictures, with its paired bootstrap interval.

    Raises:
        ValueError: the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"`a` and `b` must have the same length, got {len(a)} and {len(b)}.")
    found = paired_means(torch.tensor([list(a), list(b)], dtype=torch.double).T, seed=seed)
    value, (low, high), _ = found.difference(0, 1)
    return Interval(value, low, high)
