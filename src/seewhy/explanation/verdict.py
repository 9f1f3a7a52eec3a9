"""How far to believe one kind of evidence, or what it would take to have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["believable", "partly", "do not rely", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """A plain judgement in one sentence, how the level follows, and the figures it rests on."""

    level: Level
    sentence: str
    rule: str
    figures: str = ""
    """In words; a page shows them behind a click."""


@dataclass(frozen=True)
class Missing:
    """An evidence that cannot be given, and what it would take."""

    reason: str
    cure: str

    def to_json(self) -> dict[str, Any]:
        return {"missing": self.reason, "cure": self.cure}
