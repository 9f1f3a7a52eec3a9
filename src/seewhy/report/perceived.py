"""What a perceiver saw, on a card: the way to it as a strip of enlarged pixels, and the memorised picture beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..explanation.perceived import Perceived
from .canvas import INK, QUIET, Canvas
from .glossary import SEEN_TERMS, Term
from .page import figure, layer_uri

TITLE = "What it saw"
SMALL = 64
"""Pictures narrower than this are shown as the pixels they are."""


def seen_terms(seen: Perceived | None) -> tuple[Term, ...]:
    """Definitions that a card needs beside the others."""
    return () if seen is None else SEEN_TERMS


def loops_said(loops: int) -> str:
    """When a picture was seen.

    >>> loops_said(0), loops_said(1), loops_said(8)
    ('observed', 'after 1 loop', 'after 8 loops')
    """
    return "observed" if loops == 0 else f"after {loops} loop{'' if loops == 1 else 's'}"


def distance_said(value: float) -> str:
    """Three decimals, the unit being black to white."""
    return f"{value:.3f}"


def seen_page(seen: Perceived | None) -> dict[str, Any] | None:
    """What the template shows."""
    if seen is None:
        return None
    figures = [("moved", "Last loop moved it by", f"{255 * seen.moved:.1f} levels")]
    if seen.n_copies > 1:
        figures += [("spread", f"{seen.n_copies} copies, from their mean", distance_said(seen.spread))]
    figures += [("memorised", "Nearest memorised picture", distance_said(seen.nearest.distance))]
    return {
        "side": seen.picture.shape[1],
        "verdict": seen.verdict,
        "figures": figures,
        "path": [
            {"picture": layer_uri(picture), "said": loops_said(loops)}
            for picture, loops in zip(seen.path, seen.loops, strict=True)
        ],
        "nearest": {
            "picture": layer_uri(seen.nearest.picture),
            "image": seen.nearest.image,
            "label": seen.nearest.label,
            "distance": distance_said(seen.nearest.distance),
        },
    }


def draw_seen(c: Canvas, seen: Perceived, x: float, y: float, width: float) -> float:
    """The first and the last of the way, and the memorised picture, side by side; returns where they end."""
    shown = [
        (seen.path[0], "observed", ""),
        (seen.picture, "seen", loops_said(seen.loops[-1])),
        (seen.nearest.picture, seen.nearest.label, f"memorised, {figure(seen.nearest.distance)} away"),
    ]
    gap = 28.0
    side = round((width - 2 * gap) / 3)
    for number, (picture, name, said) in enumerate(shown):
        left = x + number * (side + gap)
        c.photo(left, y, enlarged(picture, side), side, side, 12)
        c.text(left, y + side + 28, c.clipped(name, side, 20, True), 20, INK, True)
        c.text(left, y + side + 54, c.clipped(said, side, 18), 18, QUIET)
    return y + side + 84


def enlarged(picture: np.ndarray, side: int) -> Image.Image:
    """Each pixel a square."""
    return Image.fromarray(picture).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
