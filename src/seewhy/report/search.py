"""Search results as one page: a contact sheet with figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .page import render


class Shown(Protocol):
    """A hit, as far as the page needs it."""

    @property
    def image(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def cosine(self) -> float: ...
    @property
    def distance(self) -> float | None: ...
    @property
    def copies(self) -> tuple[str, ...]: ...
    @property
    def thumbnail(self) -> bytes: ...


def render_search(found: dict[str, Any], hits: Sequence[Shown]) -> str:
    """The results as one self-contained page."""
    shown = [
        {
            "name": Path(hit.image).name,
            "image": hit.image,
            "label": hit.label,
            "cosine": hit.cosine,
            "distance": hit.distance,
            "copies": [Path(c).name for c in hit.copies],
            "uri": f"data:image/jpeg;base64,{base64.b64encode(hit.thumbnail).decode()}" if hit.thumbnail else None,
        }
        for hit in hits
    ]
    return render("search.html", None, **found | {"hits": shown}, asked=_asked(found["query"]))


def _asked(query: dict[str, Any]) -> str:
    """The question in words."""
    parts = []
    if query["text"].strip():
        parts.append(f"“{query['text'].strip()}”")
    if query["like"]:
        parts.append("like " + ", ".join(Path(p).name for p in query["like"]))
    if query["unlike"]:
        parts.append("unlike " + ", ".join(Path(p).name for p in query["unlike"]))
    if query["without"].strip():
        parts.append(f"without “{query['without'].strip()}”")
    return " · ".join(parts)
