"""Numbers with their intervals, one line a measure, one mark each of those compared: as numbers of an SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .axes import steps
from .page import percent

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720.0, 150.0, 16.0, 8.0, 28.0
LINE, GAP = 14.0, 10.0
"""Height of a mark's line, and of what is between two measures."""
COLOURS = ("good", "ember", "part", "bad", "ink", "idle")
"""Of those compared, by their names in the palette; more begin again."""


def colour_of(place: int) -> str:
    """Of the encoder in this place.

    >>> colour_of(0), colour_of(7)
    ('good', 'ember')
    """
    return COLOURS[place % len(COLOURS)]


def forest(tables: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """One drawing."""
    edges = [v for t in tables for row in t["rows"] for v in (row["value"], *row["interval"])]
    low, high = math.floor(min(edges) * 10) / 10, math.ceil(max(edges) * 10) / 10
    high = max(high, low + 0.1)

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    lines, y = [], TOP
    for table in tables:
        marks = []
        for row in table["rows"]:
            a, b = row["interval"]
            marks.append(
                {
                    "y": round(y + LINE / 2, 1), "x": x(row["value"]), "low": x(a), "high": x(b),
                    "colour": colour_of(names.index(row["encoder"])),
                    "said": f"{row['encoder']}, {table['measure']}: {said(row['value'])} ({said(a)} to {said(b)})",
                }
            )  # fmt: skip
            y += LINE
        lines.append({"measure": table["measure"], "y": round(y - LINE * len(marks) / 2 + 4, 1), "marks": marks})
        y += GAP
    return {
        "width": WIDTH,
        "height": y + BOTTOM,
        "bottom": y,
        "lines": lines,
        "across": [(x(v), f"{v * 100:.0f}" if v < 0 else percent(v)) for v in steps(low, high)],
    }


def said(value: float) -> str:
    """In per cent.

    >>> said(0.1234), said(-0.02)
    ('12.3', '−2.0')
    """
    return f"{value * 100:.1f}".replace("-", "−")
