"""The decision, judged: is it right, what else may it be, and is the picture of any class at all?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Certainty = Literal["sure", "one of few", "unlike anything it knows", "not measured"]
UNKNOWN = "unknown"
"""What rejected pictures are called."""

RULE = (
    "On pictures held out with all others of the same thing it was measured how often decisions like this one are "
    "right, and which classes must be named so that the true one is among them as often as promised. Unlike anything "
    "it knows when 95 % of held-out pictures fit the class decided for better than this one does; else sure when one "
    "class alone keeps the promise and decisions like this one are right at least as often as promised; else one of "
    "few."
)


@dataclass(frozen=True)
class Unknowns:
    """How well pictures of no class are told from pictures of the classes, on this very data.

    Attributes:
        near: area under the ROC curve against classes that were left out in turn; 0.5 is luck.
        near_found: part of those that are called unlike anything it knows.
        far: the same area against noise and patterns.
        far_found: part of those that are called so.
        kept: part of held-out pictures of its classes that are not called so.
    """

    near: float | None
    near_found: float | None
    far: float | None
    far_found: float | None
    kept: float

    def to_json(self) -> dict[str, Any]:
        return {name: None if value is None else round(value, 4) for name, value in vars(self).items()}

    @property
    def sentence(self) -> str:
        parts = []
        if self.near_found is not None:
            parts.append(f"{self.near_found:.0%} of pictures of a class left out of training")
        if self.far_found is not None:
            parts.append(f"{self.far_found:.0%} of noise and patterns")
        if not parts:
            return "How many pictures of no class it notices was not measured."
        return f"It notices {' and '.join(parts)}, and mistakes {1 - self.kept:.0%} of its own for such."


@dataclass(frozen=True)
class Decision:
    """How far to trust a decision.

    Attributes:
        verdict: sure, one of few, unlike anything it knows, or not measured.
        sentence: the figures, as a person would say them.
        classes: the conformal set, the class decided for first; without held-out pictures, the classes that have the
            promised part of the probability by the classifier's own count.
        level: how often the true class is promised to be in it.
        probability: that the decision is right, calibrated on held-out pictures; ``None`` where that was not measured.
        interval: of it, 95 %, the held-out things drawn anew.
        fit: part of held-out pictures that fit the class decided for no better than this one fits its own, 0…1.
        n: held-out pictures this was measured on.
        n_sure: of them called sure.
        sure_right: part of those that were right.
        unknowns: how well pictures of no class are told.
        missing: what it would take to measure more; empty where all is measured.
        rule: how the verdict follows.
    """

    verdict: Certainty
    sentence: str
    classes: tuple[str, ...]
    level: float
    probability: float | None = None
    interval: tuple[float, float] | None = None
    fit: float | None = None
    n: int = 0
    n_sure: int = 0
    sure_right: float | None = None
    unknowns: Unknowns | None = None
    missing: str = ""
    rule: str = RULE

    @property
    def label(self) -> str:
        """The class decided for."""
        return self.classes[0]

    @property
    def is_unknown(self) -> bool:
        return self.verdict == "unlike anything it knows"

    @property
    def headline(self) -> str:
        """The verdict with the class it is about.

        Example:
            >>> Decision("sure", "", ("wren",), 0.9).headline
            'wren, sure'
        """
        if self.is_unknown:
            return f"unlike anything it knows, or {self.label}"
        return f"{self.label}, {self.verdict}"

    @property
    def doubt(self) -> float | None:
        """Sorts the most doubtful last: the probability of being wrong, and above 1 for what is unlike all it knows."""
        if self.probability is None:
            return None
        return 2 - (self.fit or 0.0) if self.is_unknown else 1 - self.probability

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "verdict": self.verdict,
            "set": list(self.classes),
            "level": self.level,
            "probability": None if self.probability is None else round(self.probability, 4),
            "interval": None if self.interval is None else [round(v, 4) for v in self.interval],
            "fit": None if self.fit is None else round(self.fit, 4),
            "sentence": self.sentence,
            "n": self.n,
            "n_sure": self.n_sure,
            "sure_right": None if self.sure_right is None else round(self.sure_right, 4),
            "unknowns": None if self.unknowns is None else self.unknowns.to_json(),
        }
        return {**data, "missing": self.missing} if self.missing else data
