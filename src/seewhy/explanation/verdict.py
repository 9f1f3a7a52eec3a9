"""Verdicts on evidence, and missing evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["believable", "partly", "do not rely", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """A verdict on the reliability of evidence, with its rule and figures."""

    level: Level
    sentence: str
    rule: str
    figures: str = ""
    """Figures in words, which a page hides behind a click."""


@dataclass(frozen=True)
class Missing:
    """A kind of evidence that is not available, with the reason and the cure."""

    reason: str
    cure: str

    def to_json(self) -> dict[str, Any]:
        return {"missing": self.reason, "cure": self.cure}
