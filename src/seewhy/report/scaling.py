"""A learning curve as one page: the answer, the curve with its doubt, and what it rests on."""

from __future__ import annotations

import math
from typing import Any

from .axes import steps, ticks
from .page import percent, render

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640.0, 320.0, 52.0, 12.0, 12.0, 40.0
"""Of the drawing, and its margins for the axes."""


def render_scaling(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    first, _, rest = study["sentence"].partition("; ")
    charts = [_chart(arm, study) for arm in study["arms"]]
    return render("scaling.html", None, **study, headline=f"{first.rstrip('.')}.", rest=rest, charts=charts)


def _chart(arm: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    """One curve in numbers of an SVG: pictures across on a logarithmic axis, accuracy up."""
    sizes = [row["n"] for row in arm["band"]]
    left, right = math.log(sizes[0]), math.log(sizes[-1])
    edges = [v for row in arm["band"] for v in row["interval_90"]] + [v for p in arm["points"] for v in p["by_seed"]]
    low = max(0.0, math.floor(min(edges) * 10) / 10)
    high = min(1.0, math.ceil(max([*edges, study["target"] or 0.0]) * 10) / 10)

    def x(n: float) -> float:
        return round(LEFT + (math.log(n) - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (high - min(max(value, low), high)) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    upper = [f"{x(r['n'])},{y(r['interval_90'][1])}" for r in arm["band"]]
    lower = [f"{x(r['n'])},{y(r['interval_90'][0])}" for r in reversed(arm["band"])]
    return {
        "arm": arm,
        "band": " ".join(upper + lower),
        "line": " ".join(f"{x(r['n'])},{y(r['accuracy'])}" for r in arm["band"]),
        "dots": [(x(p["n"]), y(v)) for p in arm["points"] for v in p["by_seed"]],
        "means": [(x(p["n"]), y(p["accuracy"]), p) for p in arm["points"]],
        "seen": x(arm["points"][-1]["n"]),
        "target": None if study["target"] is None else y(study["target"]),
        "across": [(x(n), f"{n:,}") for n in ticks(sizes[0], sizes[-1])],
        "up": [(y(v), percent(v)) for v in steps(low, high)],
    }
