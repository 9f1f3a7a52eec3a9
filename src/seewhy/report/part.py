"""A box or a segment on a card: where it lies in the whole picture, and how much of its score comes from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..explanation.base import Explanation
from ..explanation.part import Part
from .canvas import Canvas
from .glossary import PART_TERMS, Term
from .page import figure, layer_uri, percent, photo_uri

TITLE = "Inside it, or outside"
DIMMED = 140
"""How opaque the black is that lies over pixels that are not of the part, of 255."""
SIDE = 256


def part_terms(part: Part | None) -> tuple[Term, ...]:
    """Definitions that a card needs beside the others."""
    return () if part is None else PART_TERMS


def part_page(e: Explanation) -> dict[str, Any] | None:
    """What the template shows."""
    part = e.part
    if part is None:
        return None
    (width, height), (left, top, right, bottom) = part.size, part.box
    place = (left / width, top / height, (right - left) / width, (bottom - top) / height)
    return {
        "kind": part.kind,
        "said": part.said,
        "label": part.label,
        "picture": photo_uri(part.picture),
        "size": part.picture.shape[:2],
        "layer": dimming(part, part.picture.shape[:2], whole=True),
        "view_layer": dimming(part, e.view.shape[:2]),
        "css": "left:{:.2%};top:{:.2%};width:{:.2%};height:{:.2%}".format(*place),
        "verdict": None if part.outside is None else part.outside.verdict,
        "figures": _figures(part),
        "bars": _bars(part),
    }


def dimming(part: Part, size: tuple[int, int], whole: bool = False) -> str | None:
    """A layer that darkens what is not of the part; ``None`` where all is, or on the whole picture for a box."""
    if whole and part.mask is None:
        return None
    scale = SIDE / max(size)
    height, width = (max(1, round(n * scale)) for n in size)
    frame = (0.0, 0.0, float(part.size[0]), float(part.size[1])) if whole else part.frame
    inside = part.inside(height, width, frame)
    if inside.all():
        return None
    layer = np.zeros((height, width, 4), np.uint8)
    layer[~inside, 3] = DIMMED
    return layer_uri(layer)


def _bars(part: Part) -> list[dict[str, Any]]:
    """The probability under each change, as lengths."""
    found = part.outside
    if found is None:
        return []
    rows = (
        ("as it is", found.probability),
        ("everything else hidden", found.without_outside),
        (f"{part.kind} hidden", found.without_inside),
    )
    return [{"name": name, "value": value, "said": percent(value)} for name, value in rows]


def _figures(part: Part) -> list[tuple[str, str, str]]:
    found = part.outside
    if found is None:
        return []
    return [
        ("inside", "Done inside", percent(found.share_inside)),
        ("odds-fall", f"{part.kind.capitalize()} hidden, log-odds fall by", figure(found.fall_inside)),
        ("odds-fall", "as much elsewhere", figure(found.fall_elsewhere)),
        ("odds-fall", "all else hidden", figure(found.fall_outside)),
    ]


def draw_whole(c: Canvas, part: Part | None, x: float, y: float, width: float) -> float:
    """The whole picture with the part in it, on a still; where it ends."""
    if part is None:
        return y
    shown = part.picture.copy()
    high, wide = shown.shape[:2]
    inside = part.inside(high, wide, (0.0, 0.0, float(part.size[0]), float(part.size[1])))
    shown[~inside] = (shown[~inside] * (1 - DIMMED / 255)).astype(np.uint8)
    across = round(0.6 * width)
    c.photo(x, y - 8, Image.fromarray(shown), across, max(1, round(across * high / wide)), 12)
    return y + across * high / wide + 36
