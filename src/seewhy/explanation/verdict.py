"""How far to believe one kind of evidence, or what it would take to have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["believable", "partly", "do not rely", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """A judgement in one sentence, the rule behind its level, and the figures that it rests on."""

    level: Level
    sentence: str
    rule: str
    figures: str = ""
    """In words; a page shows them behind a click."""


@dataclass(frozen=True)
class Missing:
    """A kind of evidence that cannot be given, and what it would need."""

    reason: str
    cure: str

    def to_json(self) -> dict[str, Any]:
        return {"missing": self.reason, "cure": self.cure}
