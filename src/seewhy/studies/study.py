"""The end of every study: its findings with a page, and what is said beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..progress import Progress
from ..report.paging import Answer


@dataclass(frozen=True, repr=False)
class Findings(Answer):
    """What a study found; ``data`` is the documented JSON (docs/json.md).

    Attributes:
        page: the data as one self-contained page.
    """

    page: Callable[[dict[str, Any]], str] = field(default=lambda data: data["sentence"], compare=False)

    def to_html(self) -> str:
        return self.page(self.data)


def beside(progress: Progress) -> dict[str, Any]:
    """Notes and failures, as every study tells them."""
    return {"notes": list(dict.fromkeys(progress.notes)), "failures": [f.to_json() for f in progress.failures]}
