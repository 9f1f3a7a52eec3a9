"""A patch of a known picture, as it stands on a still card."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..types import FractionBox
from .canvas import EDGE, MARK, PAPER, SMOOTH


def framed(picture: Image.Image, side: int, box: FractionBox | None) -> Image.Image:
    """The picture at its size on the card, with a box drawn on it."""
    if box is None:
        return picture
    large = picture.resize((side * SMOOTH, side * SMOOTH), Image.Resampling.BICUBIC)
    edges = tuple(v * side * SMOOTH for v in box)
    draw = ImageDraw.Draw(large)
    draw.rectangle(edges, outline=EDGE, width=4 * SMOOTH)
    inner = (edges[0] + SMOOTH, edges[1] + SMOOTH, edges[2] - SMOOTH, edges[3] - SMOOTH)
    draw.rectangle(inner, outline=MARK, width=2 * SMOOTH)
    return large


def faded(patch: np.ndarray, same: bool) -> Image.Image:
    """Patches of another class are shown, but step back."""
    picture = Image.fromarray(patch)
    if same:
        return picture
    grey = Image.blend(picture, picture.convert("L").convert("RGB"), 0.55)
    return Image.blend(grey, Image.new("RGB", grey.size, PAPER), 0.5)
