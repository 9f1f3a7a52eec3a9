"""The end of every study: its findings with a page, and what is said beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..progress import Progress
from ..report.blocks import Document, closing
from ..report.paging import Page


def _plain(data: dict[str, Any]) -> Document:
    return Document("Findings", data["sentence"], closing(data))


@dataclass(frozen=True, repr=False)
class Findings(Page):
    """What a study found; ``data`` is the documented JSON (docs/json.md), and ``page`` makes the blocks of it."""

    page: Callable[[dict[str, Any]], Document] = field(default=_plain, compare=False)

    @property
    def sentence(self) -> str:
        """The answer, in a sentence."""
        return str(self.data["sentence"])

    def document(self) -> Document:
        return self.page(self.data)


def beside(progress: Progress) -> dict[str, Any]:
    """Notes and failures, as every study tells them."""
    return {"notes": list(dict.fromkeys(progress.notes)), "failures": [f.to_json() for f in progress.failures]}
