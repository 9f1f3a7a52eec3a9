"""Segmented pictures as one page: each picture with what was found laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .found_in_pictures import Shown, render_found
from .page import layer_uri
from .palette import class_colours, named_colours

SIDE = 900
"""Pixels of the longer side of what is laid over a picture."""
OPACITY = 150
"""Of 255; the picture stays to be seen."""


class ShownSegments(Shown, Protocol):
    """A segmentation, as far as the page needs it."""

    @property
    def mask(self) -> np.ndarray: ...
    @property
    def segments(self) -> Sequence[Any]: ...
    @property
    def unnamed(self) -> float: ...
    @property
    def not_found(self) -> tuple[str, ...]: ...


def render_segments(found: Sequence[ShownSegments], n: int | None = None) -> str:
    """The pictures as one self-contained page."""
    return render_found("segments.html", found, n, _parts)


def _parts(one: ShownSegments) -> dict[str, Any]:
    step = max(1, -(-max(one.size) // SIDE))
    mask = one.mask[::step, ::step]
    layer = np.zeros((*mask.shape, 4), np.uint8)
    for index, colour in enumerate(class_colours(len(one.classes))):
        layer[mask == index] = (*colour, OPACITY)
    named = named_colours(one.classes)
    return {
        "layer": layer_uri(layer),
        "segments": [
            {"label": s.label, "share": s.share, "score": s.score, "colour": named[s.label]} for s in one.segments
        ],
        "unnamed": one.unnamed,
        "not_found": one.not_found,
    }
