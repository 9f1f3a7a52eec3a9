"""A typical picture of the class, made, on a card: it never looks like a photograph of the user's."""

from __future__ import annotations

from typing import Any

from ..explanation.typical import MadePicture, Typical
from .canvas import INK, QUIET, Canvas
from .page import layer_uri, percent
from .perceived import enlarged


def typical_title(typical: Typical) -> str:
    """The section's heading."""
    return f"A typical {typical.label}, made"


def typical_lead(typical: Typical) -> str:
    """What the pictures are, before anything is said of them."""
    return (
        f"Made by a generator: no photographs, and not of this picture. They show what {typical.climbed} takes for "
        f"{typical.label}, as far as the generator can draw it."
    )


def seen_said(one: MadePicture) -> str:
    """What the second network says of a picture."""
    return "not judged" if one.seen is None else f"seen as {one.seen}"


def typical_page(typical: Typical | None) -> dict[str, Any] | None:
    """What the template shows."""
    if typical is None:
        return None
    return {
        "title": typical_title(typical),
        "lead": typical_lead(typical),
        "verdict": typical.verdict,
        "drawn": typical.drawn,
        "judge": typical.judge,
        "pictures": [
            {"picture": layer_uri(one.pixels), "said": seen_said(one), "agrees": one.agrees, "value": one.value}
            for one in typical.pictures
        ],
    }


def draw_typical(c: Canvas, typical: Typical, x: float, y: float, width: float) -> float:
    """Lead and pictures, side by side; returns where they end."""
    y = c.paragraph(x, y, typical_lead(typical), 22, width, 4, QUIET)
    gap, n = 28.0, max(3, len(typical.pictures))
    side = round((width - (n - 1) * gap) / n)
    for number, one in enumerate(typical.pictures):
        left = x + number * (side + gap)
        c.photo(left, y, enlarged(one.pixels, side), side, side, 12)
        c.text(left, y + side + 28, c.clipped(seen_said(one), side, 20, True), 20, INK, True)
        c.text(left, y + side + 54, f"made, own probability {percent(one.value, ' ')}", 18, QUIET)
    return y + side + 84
