"""A study of explanations as one page: a table and a plot a metric, the differences, and what they rest on."""

from __future__ import annotations

from typing import Any

from .page import render

WIDTH = 100.0


def render_study(study: dict[str, Any]) -> str:
    """The study as one self-contained page.

    Args:
        study: the document of ``seewhy study faithfulness --json``.
    """
    return render("study.html", None, **study, panels=[_panel(table) for table in study["metrics"]])


def _panel(table: dict[str, Any]) -> dict[str, Any]:
    """A metric's rows, best first, controls below, each with its interval on a common axis."""
    edges = [edge for row in table["rows"] for edge in row["interval"]]
    low, high = min(edges), max(edges)
    span = (high - low) or 1.0

    def across(value: float) -> str:
        return f"{(value - low) / span * WIDTH:.2f}"

    sign = -1 if table["higher_is_better"] else 1
    rows = sorted(table["rows"], key=lambda r: (r["control"], sign * r["value"]))
    beats = {d["a"]: d["better"] == d["a"] for d in table["differences"] if d["b"] == "random"}
    return {
        **table,
        "rows": [
            {
                **row,
                "at": across(row["value"]),
                "from": across(row["interval"][0]),
                "to": across(row["interval"][1]),
                "beats_random": beats.get(row["method"]),
            }
            for row in rows
        ],
        "low": low,
        "high": high,
        "between": [d for d in table["differences"] if not d["control"]],
    }
