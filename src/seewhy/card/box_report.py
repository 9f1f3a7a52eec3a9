"""How good a detector is, as one page: figures, controls, curves, confusions."""

from __future__ import annotations

from typing import Any

from .curve import points
from .page import render
from .palette import named_colours

RECALLS = [i / 100 for i in range(101)]


def render_box_report(data: dict[str, Any]) -> str:
    """The page.

    Args:
        data: the document of ``seewhy evaluate --json`` of boxes.
    """
    colours = named_colours(data["classes"])
    curves = [
        {"label": row["label"], "colour": colours[row["label"]], "points": " ".join(_curve(row["precision"]))}
        for row in data["per_class"]
    ]
    return render("box_report.html", None, **data, headline=headline(data), curves=curves)


def _curve(precision: list[float | None]) -> list[str]:
    return points(RECALLS, [0.0 if p is None else p for p in precision], 1.0)


def headline(data: dict[str, Any]) -> str:
    """Whether words do anything here, in one sentence.

    >>> headline({"ap50": 0.3, "controls": [{"name": "a", "real": True}, {"name": "b", "real": False}]})
    'AP50 is 30.0, which is not shown to be more than what b reaches.'
    """
    if data["ap50"] is None:
        return "Nothing is on these pictures, so nothing can be found."
    below = [c["name"] for c in data["controls"] if not c["real"]]
    said = f"AP50 is {100 * data['ap50']:.1f}"
    if not below:
        return f"{said}, above every control."
    return f"{said}, which is not shown to be more than what {below[0]} reaches."
