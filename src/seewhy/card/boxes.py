"""Detections as one page: each picture with its boxes drawn over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .page import photo_uri, render
from .palette import class_colours

MOST_SHOWN = 200
"""Pictures on one page."""
MOST_BOXES = 300
"""Boxes drawn on one picture."""


class Shown(Protocol):
    """Detections, as far as the page needs them."""

    @property
    def image(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def found(self) -> Sequence[Any]: ...
    @property
    def about(self) -> dict[str, Any]: ...
    @property
    def pixels(self) -> np.ndarray: ...


def render_boxes(shown: Sequence[Shown], n: int | None = None) -> str:
    """The pictures as one self-contained page.

    Args:
        shown: at least one.
        n: how many there are in all; left out, these.
    """
    figures = [_figure(one) for one in shown[:MOST_SHOWN]]
    first, n = shown[0], n or len(shown)
    return render(
        "boxes.html", None, figures=figures, n=n, about=first.about, classes=first.classes,
        n_left_out=n - len(figures),
    )  # fmt: skip


def _figure(one: Shown) -> dict[str, Any]:
    width, height = one.size
    colours = class_colours(len(one.classes))
    named = {label: "#{:02x}{:02x}{:02x}".format(*c) for label, c in zip(one.classes, colours, strict=True)}
    boxes = []
    for d in one.found[:MOST_BOXES]:
        left, top, right, bottom = d.box
        place = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        boxes.append({"label": d.label, "score": d.score, "colour": named[d.label], "place": [100 * v for v in place]})
    counts = Counter(d.label for d in one.found)
    return {
        "name": Path(one.image).name,
        "image": one.image,
        "width": width,
        "height": height,
        "photo": photo_uri(one.pixels),
        "boxes": boxes[::-1],  # the surest is drawn last, over the others
        "counts": [{"label": label, "n": n, "colour": named[label]} for label, n in counts.most_common()],
        "n_not_drawn": len(one.found) - len(boxes),
    }
