"""Round numbers for the axes of a drawing."""

from __future__ import annotations

import math


def ticks(low: float, high: float) -> list[int]:
    """Round numbers on a logarithmic axis.

    >>> ticks(90, 2500)
    [100, 200, 500, 1000, 2000]
    """
    every = [m * 10**e for e in range(10) for m in (1, 2, 5)]
    found = [n for n in every if low <= n <= high]
    return found if len(found) < 9 else [n for n in found if str(n)[0] == "1"]


def steps(low: float, high: float) -> list[float]:
    """Four to six values of an axis.

    >>> steps(0.4, 1.0)
    [0.4, 0.6, 0.8, 1.0]
    """
    step = next(s for s in (0.05, 0.1, 0.2, 0.25) if (high - low) / s <= 5.01)
    first = math.ceil(round(low / step, 6))
    return [round(k * step, 4) for k in range(first, math.floor(round(high / step, 6)) + 1)]
