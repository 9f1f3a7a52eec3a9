"""What was found in pictures, as one page: each picture with its boxes or masks drawn over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .page import layer_uri, photo_uri, render
from .palette import class_colours, named_colours

MOST_SHOWN = 200
"""Pictures on one page."""
MOST_BOXES = 300
"""Boxes drawn on one picture."""
SIDE, OPACITY = 900, 150
"""Pixels of the longer side of what is laid over a picture, and how opaque it is, of 255."""


class ShownRegions(Protocol):
    """A picture and what was found in it, as far as the page needs them; of masks also ``mask`` and ``unnamed``."""

    @property
    def image(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def regions(self) -> Sequence[Any]: ...
    @property
    def not_found(self) -> tuple[str, ...]: ...
    @property
    def about(self) -> dict[str, Any]: ...
    @property
    def pixels(self) -> np.ndarray: ...


def render_regions(results: Sequence[ShownRegions], n: int | None = None) -> str:
    """The pictures as one self-contained page; ``n`` is how many there are in all."""
    figures, n = [_figure(result) for result in results[:MOST_SHOWN]], n or len(results)
    first = results[0]
    about = {"about": first.about, "classes": first.classes, "masks": hasattr(first, "mask")}
    return render("regions.html", None, figures=figures, n=n, n_left_out=n - len(figures), **about)


def _figure(result: ShownRegions) -> dict[str, Any]:
    (width, height), name = result.size, Path(result.image).name
    head = {"name": name, "image": result.image, "width": width, "height": height, "not_found": result.not_found}
    return {**head, "photo": photo_uri(result.pixels), **(_layer if hasattr(result, "mask") else _boxes)(result)}


def _layer(result: Any) -> dict[str, Any]:
    named = named_colours(result.classes)
    step = max(1, -(-max(result.size) // SIDE))
    mask = result.mask[::step, ::step]
    layer = np.zeros((*mask.shape, 4), np.uint8)
    for index, colour in enumerate(class_colours(len(result.classes))):
        layer[mask == index] = (*colour, OPACITY)
    rows = [{"label": s.label, "colour": named[s.label], "share": s.share, "score": s.score} for s in result.regions]
    return {"layer": layer_uri(layer), "boxes": [], "rows": rows, "unnamed": result.unnamed, "n_not_drawn": 0}


def _boxes(result: ShownRegions) -> dict[str, Any]:
    (width, height), named = result.size, named_colours(result.classes)
    boxes = []
    for d in result.regions[:MOST_BOXES]:
        left, top, right, bottom = d.box
        place = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        boxes.append({"label": d.label, "score": d.score, "colour": named[d.label], "place": [100 * v for v in place]})
    counts = Counter(d.label for d in result.regions)
    rows = [{"label": label, "n": n, "colour": named[label]} for label, n in counts.most_common()]
    # The surest is drawn last, over the others.
    return {"boxes": boxes[::-1], "rows": rows, "unnamed": 0, "n_not_drawn": len(result.regions) - len(boxes)}
