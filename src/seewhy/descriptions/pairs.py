"""What is said about one picture, and what parts two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, InputError


@dataclass(frozen=True)
class Caption:
    """What is said about one picture."""

    image: str
    digest: str
    texts: tuple[str, ...]
    label: str | None = None
    scores: tuple[float, ...] = ()
    model: str = ""
    prompt: str = ""

    def to_json(self) -> dict[str, Any]:
        """Without what is empty."""
        found = {**vars(self), "texts": list(self.texts), "scores": [round(s, 6) for s in self.scores]}
        return {name: value for name, value in found.items() if value not in (None, "", [])}


@dataclass(frozen=True)
class Difference:
    """One thing in which two classes differ."""

    attribute: str
    first: str
    second: str


@dataclass(frozen=True)
class Pair:
    """Two classes and what parts them (arXiv 2311.07593, section 3.2)."""

    classes: tuple[str, str]
    differences: tuple[Difference, ...]

    def captions(self, label: str) -> tuple[str, ...]:
        """Those of one of the two classes."""
        if label not in self.classes:
            raise InputError(f"{label!r} is not of the pair {self.classes}. One of the two was expected.")
        first = label == self.classes[0]
        return tuple(dict.fromkeys(d.first if first else d.second for d in self.differences))

    def to_json(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "differences": [vars(d) for d in self.differences]}


def check_pairs(pairs: Sequence[Pair], classes: Sequence[str]) -> list[Pair]:
    """Those of these classes."""
    kept = [p for p in pairs if set(p.classes) <= set(classes)]
    if not kept:
        named = sorted({n for p in pairs for n in p.classes})
        raise DataError(
            f"None of the {len(pairs)} pairs ({', '.join(map(repr, named[:3]))}, …) is of two of the {len(classes)} "
            f"classes ({', '.join(map(repr, classes[:3]))}, …). Name them alike."
        )
    return kept
