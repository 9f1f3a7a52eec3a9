"""Search results as one page: a contact sheet with figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .blocks import Document, Facts, Note, Picture, Pictures, Section, Strong, Text
from .page import figure, render_document

COLUMNS = {
    "look": "what is seen",
    "whitened": "what is seen, whitened",
    "words": "the space shared with words",
}


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


def render_search(data: dict[str, Any], hits: Sequence[Shown]) -> str:
    """The results as one self-contained page."""
    n, n_searched = data["n"], data["n_searched"]
    among = f"{n_searched:,}" if n_searched == n else f"{n_searched:,} of {n:,}"
    found = "Every picture was compared: no nearer one was missed."
    facts = {
        "encoder": data["encoder"],
        "fingerprint": data["fingerprint"][:12],
        "compared by": COLUMNS[data["column"]],
        "index version": data["version"],
    }
    shown = Pictures([_hit(hit) for hit in hits], "sheet") if hits else Note("Nothing was found.")
    asked, above = _asked(data["query"]), f"Search among {among} {'picture' if n == 1 else 'pictures'}"
    return render_document(Document(asked, asked, [shown, Section("The index", [Facts(facts)])], above, (found,)))


def _hit(hit: Shown) -> Picture:
    name = Path(hit.image).name
    parts = "" if hit.distance is None else f" · parts {figure(hit.distance)}"
    caption: list[Text] = [Strong(hit.label)] if hit.label else []
    caption += [name, f"cosine {figure(hit.cosine)}{parts}"]
    if hit.copies:
        copies = ", ".join(Path(copy).name for copy in hit.copies)
        caption.append(f"{len(hit.copies)} near-{'duplicate' if len(hit.copies) == 1 else 'duplicates'}: {copies}")
    return Picture(hit.thumbnail or None, name, caption, title=hit.image)


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
