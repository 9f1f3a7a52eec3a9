"""The classes of one picture, by falling probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .decision import UNKNOWN, Decision


class Ranked(NamedTuple):
    """A class and its probability in 0…1."""

    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The decision on one picture.

    Attributes:
        image: file name as given.
        top: classes by falling probability, the decision first.
        n_classes: those the classifier knows; left out, those in ``top``.
        decision: how far to trust it, where that was asked.
        rejected: whether it goes out as unknown, since the picture is unlike all that was trained on.
    """

    image: str
    top: tuple[Ranked, ...]
    n_classes: int = 0
    decision: Decision | None = None
    rejected: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_classes", self.n_classes or len(self.top))

    @property
    def label(self) -> str:
        return self.top[0].label

    @property
    def score(self) -> float:
        return self.top[0].score

    def __repr__(self) -> str:
        told = ", ".join(f"{r.label[:40]} {r.score:.1%}" for r in self.top[:3])
        rest = "" if self.n_classes <= 3 else f", … of {self.n_classes:,} classes"
        judged = "" if self.decision is None else f"; {self.decision.verdict}"
        return f"Prediction({self.image[-80:]!r}: {told}{rest}{judged})"

    def to_json(self) -> dict[str, Any]:
        data = {
            "image": self.image,
            "label": UNKNOWN if self.rejected else self.label,
            "score": round(self.score, 6),
            "top": [{"label": r.label, "score": round(r.score, 6)} for r in self.top],
        }
        return data if self.decision is None else data | {"decision": self.decision.to_json()}
