"""What would be a typical picture of a class, as a card shows it: pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .verdict import Verdict


@dataclass(frozen=True, eq=False)
class MadePicture:
    """One picture that was made.

    Attributes:
        pixels: uint8 ``(h, w, 3)``.
        value: the probability that the climbed classifier gives it, which proves nothing.
        seen: the class that the second network sees; ``None`` where nothing was judged.
        agrees: whether that is the class asked for; ``None`` where it has no such class.
    """

    pixels: np.ndarray
    value: float
    seen: str | None = None
    agrees: bool | None = None


@dataclass(frozen=True, eq=False)
class Typical:
    """Pictures of a class that a generator made; they are of the class and not of the picture that is explained.

    Attributes:
        label: the class.
        climbed: the network that they were made for.
        pictures: different ones.
        judge: the second network; ``None`` where none was named.
        drawn: how well the generator draws, in a sentence.
    """

    label: str
    climbed: str
    pictures: tuple[MadePicture, ...]
    judge: str | None
    drawn: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """For ``explain --json`` (docs/json.md)."""
        return {
            "label": self.label,
            "climbed": self.climbed,
            "judge": self.judge,
            "generator": self.drawn,
            "pictures": [
                {"value": round(one.value, 5), "seen": one.seen, "agrees": one.agrees} for one in self.pictures
            ],
            "verdict": self.verdict.level,
        }
