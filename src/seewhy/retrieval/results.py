"""What a search found: hits with their figures, as JSON, as a page and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..report.paging import Page


@dataclass(frozen=True)
class Hit:
    """One picture that was found.

    Attributes:
        id: of the index; never given twice.
        image: file name.
        label: its class; empty where it has none.
        cosine: with the query, -1…1; with a whitened index, of whitened vectors.
        exact: whether every picture was compared, so that no nearer one can have been missed.
        distance: of spatial search, 0…2; it decides the order where it is there.
        copies: file names of near-duplicates that are not shown beside it.
        thumbnail: JPEG; empty where the index keeps none.
    """

    id: int
    image: str
    label: str
    cosine: float
    exact: bool
    distance: float | None = None
    copies: tuple[str, ...] = ()
    thumbnail: bytes = field(default=b"", repr=False)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": self.id,
            "image": self.image,
            "label": self.label,
            "cosine": round(min(1.0, max(-1.0, self.cosine)), 6),  # of 1,280 float32 products, it may end above 1
            "exact": self.exact,
            "copies": list(self.copies),
        }
        return found if self.distance is None else {**found, "distance": round(max(0.0, self.distance), 6)}


@dataclass(frozen=True, repr=False)
class Results(Page):
    """The pictures found, nearest first; ``data`` is the documented JSON (docs/search.md).

    Attributes:
        hits: the same, with thumbnails.
    """

    hits: tuple[Hit, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every picture was compared."""
        return bool(self.data["exact"])

    def to_html(self) -> str:
        from ..report.search import render_search

        return render_search(self.data, self.hits)
