"""Student's distribution, and that of a sum of two: for numbers whose spread is known from few draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

N = 2001
"""Points on which a distribution is tabled."""


class Error(NamedTuple):
    """A standard error, and the degrees of freedom with which it is known."""

    size: float
    freedom: int


@cache
def _table(freedom: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Values, what each weighs, and how often one is at most so large.

    With ``t = sqrt(f) tan(a)`` the density is ``cos(a)^(f-1)``; within ``a`` it is even enough for equal steps.
    """
    most = min(1.0, 20 / math.sqrt(freedom) / (math.pi / 2))  # beyond 20 standard deviations there is nothing
    a = torch.linspace(-1, 1, N + 2, dtype=torch.double)[1:-1] * math.pi / 2 * most
    weight = a.cos() ** (freedom - 1)
    weight = weight / weight.sum()
    return math.sqrt(freedom) * a.tan(), weight, weight.cumsum(0) - weight / 2


def beyond(value: float, errors: Sequence[Error]) -> float:
    """How often so large a number comes of nothing: two-sided, of ``Σ size · t(freedom)`` over one or two errors.

    Of one this is Student's test; of two that of Behrens and Fisher, which does not call more real than it should where
    one error is known from few draws and happens to be small.

    >>> [round(beyond(2.776, [Error(1.0, 4), *more]), 3) for more in ([], [Error(0.0, 99)], [Error(1.0, 99)])]
    [0.05, 0.05, 0.094]
    """
    large = [error for error in errors if error.size > 1e-12]
    if not large:
        return 1.0 if abs(value) < 1e-12 else 0.0
    first, *rest = sorted(large, key=lambda error: error.freedom)
    values, weight, _ = _table(first.freedom)
    if not rest:
        values, weight, rest = torch.zeros(1, dtype=torch.double), torch.ones(1, dtype=torch.double), [first]
        first = Error(0.0, 1)
    at, _, below = _table(rest[0].freedom)

    def at_most(limit: Tensor) -> Tensor:
        return _read(below, at, limit / rest[0].size)

    shift = first.size * values
    tail = at_most(-abs(value) - shift) + 1 - at_most(abs(value) - shift)
    return min(1.0, float((weight * tail).sum()))


def _read(table: Tensor, at: Tensor, where: Tensor) -> Tensor:
    """A table between its points, straight."""
    after = torch.searchsorted(at, where.contiguous()).clamp(1, len(at) - 1)
    part = ((where - at[after - 1]) / (at[after] - at[after - 1])).clamp(0, 1)
    return table[after - 1] + part * (table[after] - table[after - 1])


def within(level: float, errors: Sequence[Error]) -> float:
    """How far from 0 such a sum stays with this probability.

    >>> round(within(0.95, [Error(1.0, 4)]), 2), round(within(0.95, [Error(1.0, 4), Error(1.0, 99)]), 2)
    (2.78, 3.38)
    """
    low, high = 0.0, 50 * sum(error.size for error in errors)
    for _ in range(36 if high > 0 else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle, errors) > 1 - level else (low, middle)
    return (low + high) / 2
