"""What was found in pictures, as one page: each picture with its parts drawn over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from .page import photo_uri, render

MOST_SHOWN = 200
"""Pictures on one page."""


class Shown(Protocol):
    """A picture and what was found in it, as far as the page needs them."""

    @property
    def image(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def about(self) -> dict[str, Any]: ...
    @property
    def pixels(self) -> np.ndarray: ...


S = TypeVar("S", bound=Shown)


def render_found(template: str, found: Sequence[S], n: int | None, parts: Callable[[S], dict[str, Any]]) -> str:
    """The pictures as one self-contained page."""
    figures = [_figure(one) | parts(one) for one in found[:MOST_SHOWN]]
    first, n = found[0], n or len(found)
    return render(
        template, None, figures=figures, n=n, about=first.about, classes=first.classes, n_left_out=n - len(figures)
    )


def _figure(one: Shown) -> dict[str, Any]:
    width, height = one.size
    return {
        "name": Path(one.image).name,
        "image": one.image,
        "width": width,
        "height": height,
        "photo": photo_uri(one.pixels),
    }
