"""Detections as one page: each picture with its boxes drawn over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from .found_in_pictures import Shown, render_found
from .palette import named_colours

MOST_BOXES = 300
"""Boxes drawn on one picture."""


class ShownBoxes(Shown, Protocol):
    """Detections, as far as the page needs them."""

    @property
    def found(self) -> Sequence[Any]: ...
    @property
    def not_found(self) -> tuple[str, ...]: ...


def render_boxes(shown: Sequence[ShownBoxes], n: int | None = None) -> str:
    """The pictures as one self-contained page."""
    return render_found("boxes.html", shown, n, _parts)


def _parts(one: ShownBoxes) -> dict[str, Any]:
    width, height = one.size
    named = named_colours(one.classes)
    boxes = []
    for d in one.found[:MOST_BOXES]:
        left, top, right, bottom = d.box
        place = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        boxes.append({"label": d.label, "score": d.score, "colour": named[d.label], "place": [100 * v for v in place]})
    counts = Counter(d.label for d in one.found)
    return {
        "boxes": boxes[::-1],  # the surest is drawn last, over the others
        "counts": [{"label": label, "n": n, "colour": named[label]} for label, n in counts.most_common()],
        "n_not_drawn": len(one.found) - len(boxes),
        "not_found": one.not_found,
    }
