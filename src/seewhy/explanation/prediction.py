"""The classes of one picture, by falling probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .decision import UNKNOWN, Decision


class Ranked(NamedTuple):
    """A class and the classifier's own score of it, 0…1: those of all classes add up to 1."""

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
        """The classifier's own score of the decision, measured on nothing."""
        return self.top[0].score

    @property
    def is_measured(self) -> bool:
        """Whether held-out pictures say how often such decisions are right."""
        return self.decision is not None and self.decision.probability is not None

    @property
    def probability(self) -> float | None:
        """That the decision is right: the one percentage of a picture, on its card, its tile and in the terminal.

        Calibrated on held-out pictures; the classifier's own score where none were held out. ``None`` where no class
        is decided for, as the picture is unlike anything it knows, and where there is one class only.

        Example:
            >>> mango = (Ranked("mango", 0.91), Ranked("papaya", 0.09))
            >>> measured = Decision("sure", "", ("mango",), 0.9, probability=0.98)
            >>> Prediction("a.jpg", mango).probability, Prediction("a.jpg", mango, decision=measured).probability
            (0.91, 0.98)
        """
        d = self.decision
        if self.n_classes == 1 or (d is not None and d.is_unknown):
            return None
        return self.score if d is None or d.probability is None else d.probability

    def __repr__(self) -> str:
        told = ", ".join(f"{r.label[:40]} {r.score:.1%}" for r in self.top[:3])
        rest = "" if self.n_classes <= 3 else f", … of {self.n_classes:,} classes"
        d, right = self.decision, self.probability
        judged = "" if d is None else f"; {d.verdict}"
        if d is not None and self.is_measured:
            told = f"{d.headline}{'' if right is None else f', right {right:.1%}'}; own scores {told}"
            judged = ""
        return f"Prediction({self.image[-80:]!r}: {told}{rest}{judged})"

    def to_json(self) -> dict[str, Any]:
        data = {
            "image": self.image,
            "label": UNKNOWN if self.rejected else self.label,
            "score": round(self.score, 6),
            "top": [{"label": r.label, "score": round(r.score, 6)} for r in self.top],
        }
        return data if self.decision is None else data | {"decision": self.decision.to_json()}
