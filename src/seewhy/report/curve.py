"""Numbers to the ``points`` of an SVG line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 100.0, 60.0


class Chart(NamedTuple):
    """Two curves on one pair of axes, in units of a 100 × 60 box."""

    key: str
    title: str
    across: str
    top: float
    map_points: str
    random_points: str
    between: str
    area: float | None
    area_random: float | None


def points(x: Sequence[float], y: Sequence[float], top: float, height: float = HEIGHT) -> list[str]:
    """``x`` in 0…1 runs across, ``y`` in 0…top runs up.

    >>> points([0.0, 1.0], [0.0, 0.5], 1.0)
    ['0.0,60.0', '100.0,30.0']
    """
    return [f"{a * WIDTH:.1f},{height - min(max(b / top, 0.0), 1.0) * height:.1f}" for a, b in zip(x, y, strict=False)]


def ceiling(*curves: Sequence[float]) -> float:
    """The round probability that the axis ends at."""
    highest = max((value for curve in curves for value in curve), default=1.0)
    return next((top for top in (0.25, 0.5) if highest <= top), 1.0)
