"""A figure of an audit, the limit it must keep, and what figures are measured on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...classifiers.base import Classifier
from ...evaluation.copies import Judged
from ...explanation.base import Explanation
from ...metrics.calibration import accuracy_interval
from ...pictures.object_masks import MaskSource
from ...pictures.samples import Sample
from ...progress import Progress
from ...storage.features import FeatureStore

Bound = Literal["worst", "value", "best"]
BOUNDS: tuple[str, ...] = get_args(Bound)
Side = Literal["at_least", "at_most"]
State = Literal["pass", "fail", "not measured"]
ENDS: dict[Bound, str] = {
    "worst": "the worse end of the interval",
    "value": "the figure",
    "best": "the better end of the interval",
}


@dataclass(frozen=True)
class Figure:
    """What was measured."""

    value: float | None
    interval: tuple[float, float] | None = None
    n: int = 0
    meaning: str = ""
    detail: Any = None


def missing(reason: str) -> Figure:
    """A figure that cannot be measured."""
    return Figure(None, meaning=reason)


def share(inside: Bool[Tensor, " n"], meaning: str) -> Figure:
    """A part of pictures, with Wilson's interval."""
    return Figure(float(inside.float().mean()), accuracy_interval(inside), len(inside), meaning)


@dataclass(frozen=True)
class Limit:
    """What a figure must keep."""

    side: Side
    value: float
    bound: Bound = "value"
    required: bool = True
    level: str = ""

    def judged(self, figure: Figure) -> float | None:
        """The number that is held against the limit.

        >>> Limit("at_least", 0.9, "worst").judged(Figure(0.95, (0.88, 0.99)))
        0.88
        """
        if figure.value is None or figure.interval is None or self.bound == "value":
            return figure.value
        return figure.interval[(self.bound == "worst") != (self.side == "at_least")]

    def broken(self, figure: Figure) -> bool:
        """Whether this breaks a contract.

        >>> Limit("at_most", 0.1, required=False).broken(Figure(0.12)), Limit("at_most", 0.1).broken(Figure(0.12))
        (False, True)
        """
        return self.required and self.state(figure) != "pass"

    def state(self, figure: Figure) -> State:
        """Whether the limit is kept.

        >>> Limit("at_most", 0.1, "best").state(Figure(0.12, (0.08, 0.2)))
        'pass'
        """
        value = self.judged(figure)
        if value is None:
            return "not measured"
        return "pass" if (value >= self.value if self.side == "at_least" else value <= self.value) else "fail"

    @property
    def told(self) -> str:
        """In words.

        >>> Limit("at_least", 0.9, "worst").told
        'at least 0.9, by the worse end of the interval'
        """
        return f"{self.side.replace('_', ' ')} {self.value:g}, by {ENDS[self.bound]}"

    def said(self, figure: Figure) -> str:
        """What is held against the limit, by its name, with as many digits as tell the two apart.

        >>> Limit("at_least", 0.9, "worst").said(Figure(0.95, (0.89996, 0.99)))
        'the worse end of the interval, 0.89996'
        >>> Limit("at_most", 0.1).said(Figure(0.12))
        'the figure, 0.120'
        """
        value = self.judged(figure)
        if value is None:
            return ""
        end, state = ENDS["value" if figure.interval is None else self.bound], self.state(figure)
        # As pages round the interval's ends, from four decimals.
        shown = [f"{round(value, 4):.3f}", *(f"{value:.{digits}f}" for digits in range(4, 17))]
        return f"{end}, {next((s for s in shown if self.state(Figure(float(s))) == state), repr(value))}"

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "level" or v}


@dataclass(frozen=True, eq=False)
class Material:
    """A classifier and what it said of labelled pictures that it should not have been fitted on."""

    classifier: Classifier
    items: tuple[Sample, ...]
    logits: Float[Tensor, "n k"]
    pooled: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    files: tuple[Judged, ...]
    grouped: bool
    n_unreadable: int
    n_explained: int
    masks: MaskSource | None
    store: FeatureStore | None
    seed: int
    progress: Progress

    @cached_property
    def right(self) -> Bool[Tensor, " n"]:
        return self.logits.argmax(1) == self.labels

    @cached_property
    def explained(self) -> tuple[Explanation, ...]:
        """Cards of pictures drawn at random; made when a figure first asks for them."""
        drawn = random.Random(self.seed).sample(range(len(self.items)), min(self.n_explained, len(self.items)))
        pictures = [self.items[i].source for i in sorted(drawn)]
        stream = self.classifier.explain_all(pictures, store=self.store, seed=self.seed)
        made = self.progress.track(stream, "Measuring explanations", len(pictures))
        return tuple(e for e in made if isinstance(e, Explanation))


Measure = Callable[[Material, Limit], Figure]


@dataclass(frozen=True)
class Check:
    """One figure.

    Attributes:
        name: in contracts.
        title: on pages.
        told: what it is, for the contract that is written.
        limit: of the contract that is written.
        measure: the figure; one without a value where it cannot be had.
        low, high: between which a limit makes sense.
    """

    name: str
    title: str
    told: str
    limit: Limit
    measure: Measure
    low: float = 0.0
    high: float = 1.0


CHECKS: dict[str, Check] = {}
"""Every figure that a contract can name, in the order of reports."""


def check(title: str, told: str, limit: Limit, *, name: str = "", low: float = 0.0, high: float = 1.0) -> Any:
    """Register what measures a figure, under its name."""

    def register(measure: Measure) -> Measure:
        key = name or measure.__name__
        CHECKS[key] = Check(key, title, told, limit, measure, low, high)
        return measure

    return register
