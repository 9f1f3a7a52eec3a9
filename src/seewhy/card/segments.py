"""Segmented pictures as one page: each picture with what was found laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .page import layer_uri, photo_uri, render
from .palette import class_colours

SIDE = 900
"""Pixels of the longer side of what is laid over a picture."""
OPACITY = 150
"""Of 255; the picture stays to be seen."""
MOST_SHOWN = 200
"""Pictures on one page."""


class Shown(Protocol):
    """A segmentation, as far as the page needs it."""

    @property
    def image(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def mask(self) -> np.ndarray: ...
    @property
    def segments(self) -> Sequence[Any]: ...
    @property
    def about(self) -> dict[str, Any]: ...
    @property
    def pixels(self) -> np.ndarray: ...


def render_segments(found: Sequence[Shown], n: int | None = None) -> str:
    """The pictures as one self-contained page.

    Args:
        found: at least one.
        n: how many there are in all; left out, these.
    """
    shown = [_figure(one) for one in found[:MOST_SHOWN]]
    first = found[0]
    return render(
        "segments.html", None, figures=shown, n=n or len(found), about=first.about, classes=first.classes,
        n_left_out=(n or len(found)) - len(shown),
    )  # fmt: skip


def _figure(one: Shown) -> dict[str, Any]:
    colours = class_colours(len(one.classes))
    width, height = one.size
    step = max(1, -(-max(width, height) // SIDE))
    mask = one.mask[::step, ::step]
    layer = np.zeros((*mask.shape, 4), np.uint8)
    for index, colour in enumerate(colours):
        layer[mask == index] = (*colour, OPACITY)
    named = {label: "#{:02x}{:02x}{:02x}".format(*colour) for label, colour in zip(one.classes, colours, strict=True)}
    return {
        "name": Path(one.image).name,
        "image": one.image,
        "width": width,
        "height": height,
        "photo": photo_uri(one.pixels),
        "layer": layer_uri(layer),
        "segments": [
            {"label": s.label, "share": s.share, "score": s.score, "colour": named[s.label]} for s in one.segments
        ],
        "unnamed": float((one.mask >= len(one.classes)).mean()),
    }
