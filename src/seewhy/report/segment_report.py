"""How good masks are, as one page: the table with its controls, then class by class."""

from __future__ import annotations

from typing import Any

from .page import render

WIDTH = 100.0


def render_segment_report(data: dict[str, Any]) -> str:
    """The page."""
    most = max([row["interval"][1] for row in data["rows"]] + [1e-9])
    classes = sorted(data["classes"], key=lambda c: -1.0 if c["iou"] is None else -c["iou"])
    return render(
        "segment_report.html",
        None,
        **{**data, "classes": classes},
        headline=_headline(data),
        bars=[{**row, "at": row["miou"] / most * WIDTH, "verdict": _verdict(row)} for row in data["rows"]],
    )


def _headline(data: dict[str, Any]) -> str:
    """The figure, and whether it is anybody's."""
    own, controls = data["rows"][0], [row for row in data["rows"] if row["control"]]
    beaten = [row for row in controls if row["real"] and row["difference"] > 0]
    said = f"Mean IoU {100 * own['miou']:.1f}"
    if len(beaten) == len(controls):
        return f"{said}, above every control"
    worst = max((row for row in controls if row not in beaten), key=lambda row: row["miou"])
    return f"{said}, not shown to be above “{worst['name']}” ({100 * worst['miou']:.1f})"


def _verdict(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    if not row["real"]:
        return "not shown"
    return "below the model" if row["difference"] > 0 else "above the model"
