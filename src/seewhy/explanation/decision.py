"""The decision, judged: is it right, what else may it be, and is the picture of any class at all?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Certainty = Literal["sure", "one of few", "unlike anything it knows", "not measured"]
UNKNOWN = "unknown"
"""What rejected pictures are called."""

RULE = (
    "On pictures held out with all others of the same thing it was measured how often decisions like this one are "
    "right, and which classes must be named so that the true one is among them as often as promised. Unlike "
    "anything it knows when the picture is stranger than 95 % of held-out pictures, by the mean of two distances "
    "from the training pictures. Else sure when one class alone keeps the promise, decisions like this one are "
    "right at least as often as promised, and the picture is no stranger than four fifths of held-out pictures, and "
    "no more unusual for its class than two thirds, by the mean of four published scores. Else one of few."
)


@dataclass(frozen=True)
class Unknowns:
    """How well pictures of no class are noticed, on this very data.

    Attributes:
        near: area under the ROC curve of known pictures against those of classes that were left out of the whole fit,
            part after part, pooled; 0.5 is luck. ``None``, as all about them, where it was not measured.
        near_found: share of those that are called unlike anything it knows.
        near_interval: of that, 95 %, classes counting as a whole.
        near_sure: share of those that are called sure.
        near_sure_interval: of that, likewise.
        near_kept: share of known pictures in those fits that are not called unlike anything it knows.
        n_near: how many those were.
        far: the same area against noise and patterns.
        far_found: share of those that are called unlike anything it knows.
        far_sure: share of those that are called sure.
        kept: share of held-out pictures of its classes that are not called unlike anything it knows.
    """

    near: float | None = None
    near_found: float | None = None
    near_interval: tuple[float, float] | None = None
    near_sure: float | None = None
    near_sure_interval: tuple[float, float] | None = None
    near_kept: float | None = None
    n_near: int = 0
    far: float | None = None
    far_found: float | None = None
    far_sure: float | None = None
    kept: float = 1.0

    def to_json(self) -> dict[str, Any]:
        def rounded(value: Any) -> Any:
            if isinstance(value, tuple):
                return [round(end, 4) for end in value]
            return round(value, 4) if isinstance(value, float) else value

        return {name: rounded(value) for name, value in vars(self).items()}

    @classmethod
    def restore(cls, facts: dict[str, Any]) -> Unknowns:
        """From the fields, as JSON keeps them."""
        read: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
        return cls(**read)

    @property
    def sentence(self) -> str:
        parts = []
        if self.near_found is not None:
            noticed, sure = _share(self.near_found, self.near_interval), _share(self.near_sure, self.near_sure_interval)
            parts.append(f"{noticed} of pictures of a class that was left out of the fit, and is sure of {sure}")
        if self.far_found is not None:
            parts.append(f"{self.far_found:.0%} of noise and patterns")
        if not parts:
            return "How many pictures of no class it notices was not measured."
        return f"It notices {'; it notices '.join(parts)}. It mistakes {1 - self.kept:.0%} of its own for such."


def _share(value: float | None, interval: tuple[float, float] | None) -> str:
    low, high = interval or (0.0, 1.0)
    return f"{value or 0:.0%} ({low:.0%} to {high:.0%})"


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
        interval: of it, 95 %: the held-out things drawn anew, and as much better or worse as another day may be.
        fit: part of held-out pictures that are as strange as this one, or stranger, 0…1.
        n: held-out pictures this was measured on.
        n_sure: of them called sure.
        sure_right: part of those that were right.
        unknowns: how well pictures of no class are noticed.
        another_day: how often the true class may be in the set on another day, at least; ``None`` where the pictures
            that it was measured on say of themselves how they belong together.
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
    another_day: float | None = None
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
            "another_day": None if self.another_day is None else round(self.another_day, 4),
        }
        return {**data, "missing": self.missing} if self.missing else data
