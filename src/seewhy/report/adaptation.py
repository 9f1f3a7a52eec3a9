"""What training an encoder gained and what it forgot, as one page: measures, the training, and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from .page import photo_uri, render

WIDTH, HEIGHT = 640.0, 160.0
"""Of the curve, in its own units."""
HEADINGS = {"image_to_text": "picture to text R@5", "text_to_image": "text to picture R@5"}
N_POINTS = 200
"""Points of a curve; a longer training is averaged."""


def render_adaptation(data: dict[str, Any], pictures: Mapping[str, np.ndarray] = MappingProxyType({})) -> str:
    """The page."""
    run = data.get("run")
    uris = {name: photo_uri(view, quality=80) for name, view in pictures.items()}
    return render(
        "adaptation.html",
        None,
        **{**data, "run": run},
        headline=_headline(data["measures"]),
        bars=[_bar(row) for row in data["measures"]],
        guarded=run is not None and run["provenance"]["train"] == "heads" and run["provenance"].get("guard", False),
        finds=any("R@" in row["measure"] for row in data["measures"]),
        kept=None if run is None else _kept(run),
        curves=[] if run is None else _curves(run["history"]),
        uris=uris,
    )


def render_pretraining(data: dict[str, Any]) -> str:
    """The page of a training on pictures alone."""
    return render(
        "pretraining.html",
        None,
        **data,
        headline=_lesson(data),
        bars=[_bar(row) for row in data["measures"]],
        curves=_curves(data["run"]["history"]),
    )


def _lesson(data: Mapping[str, Any]) -> str:
    """What changed, in one sentence.

    >>> row = {"measure": "class by 20 neighbours", "after": 0.9, "before": 0.6}
    >>> _lesson({"measures": [row], "n_pictures": 50})
    'Neighbours tell 90 of 100 held-out pictures right; before, 60.'
    >>> _lesson({"measures": [{**row, "difference": 0.3, "real": False}], "n_pictures": 50})
    'Neighbours tell 90 of 100 held-out pictures right; before, 60: no real difference.'
    >>> _lesson({"measures": [], "n_pictures": 50})
    'Trained on 50 pictures; how good it is was not measured, as they have no classes.'
    """
    if not data["measures"]:
        return f"Trained on {data['n_pictures']} pictures; how good it is was not measured, as they have no classes."
    row = data["measures"][0]
    said = f"Neighbours tell {100 * row['after']:.0f} of 100 held-out pictures right"
    return f"{said}; before, {100 * row['before']:.0f}{_unless_real(row)}."


def _headline(rows: Sequence[Mapping[str, Any]]) -> str:
    """What changed, in one sentence.

    >>> _headline([{"measure": "text to picture R@5", "after": 0.44, "before": 0.24, "difference": 0.2, "real": True}])
    'Texts find their picture among the first five in 44 of 100 cases; before, in 24.'
    """
    row = next((r for r in rows if r["measure"] == "text to picture R@5"), None)
    if row is None:
        first = rows[0]
        said = f"{first['measure']}: right for {100 * first['after']:.0f} of 100 pictures; before, {_before(first)}"
        return f"{said}{_unless_real(first)}."
    said = f"Texts find their picture among the first five in {100 * row['after']:.0f} of 100 cases"
    return said + (f"; before, in {100 * row['before']:.0f}{_unless_real(row)}." if "before" in row else ".")


def _unless_real(row: Mapping[str, Any]) -> str:
    """No gain is claimed where the interval of the difference, over the same pictures, does not leave out 0."""
    return "" if row.get("real", True) else ": no real difference"


def _before(row: Mapping[str, Any]) -> str:
    return f"for {100 * row['before']:.0f}"


def _kept(run: Mapping[str, Any]) -> dict[str, Any]:
    """Columns and rows of the table of what each ``keep`` gives.

    >>> _kept({"tried": [{"keep": 0.5, "right": {"kind": 0.2}, "named": None}], "tried_named": "own classes by name"})
    {'columns': ['kind', 'own classes by name'], 'rows': [(0.5, [0.2, None])]}
    """
    flat = [{**{k: v for k, v in one.items() if k != "right"}, **one.get("right", {})} for one in run["tried"]]
    names = [name for name in flat[0] if name not in ("keep", "named")]
    values = [(one["keep"], [one[name] for name in (*names, "named")]) for one in flat]
    return {"columns": [*(HEADINGS.get(name, name) for name in names), run["tried_named"]], "rows": values}


def _bar(row: Mapping[str, Any]) -> dict[str, Any]:
    """A measure with what is said of its change."""
    compared, verdict = "difference" in row, "not real"
    if compared and row["real"]:
        verdict = "gained" if row["difference"] > 0 else "forgotten"
    if not compared:
        return {**row, "compared": False, "verdict": ""}
    low, high = map(_signed, row["difference_interval"])
    change = {"change": _signed(row["difference"]), "change_range": f"{low} to {high}"}
    return {**row, "compared": True, "verdict": verdict, **change}


def _signed(part: float) -> str:
    """In points, with a real minus sign.

    >>> _signed(0.137), _signed(-0.0921)
    ('+13.7', '−9.2')
    """
    return f"{100 * part:+.1f}".replace("-", "−")


def _curves(history: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each term of the loss as a line."""
    found = []
    for name in history[0] if history else ():
        values = _thinned([step[name] for step in history])
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        across = max(1, len(values) - 1)
        points = [(WIDTH * i / across, HEIGHT * (high - v) / span) for i, v in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        found.append({"name": name, "points": path, "first": values[0], "last": values[-1], "low": low, "high": high})
    return found


def _thinned(values: Sequence[float]) -> list[float]:
    """At most so many values, each the mean of its stretch."""
    size = -(-len(values) // N_POINTS)
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]
