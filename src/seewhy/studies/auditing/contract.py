"""Metrics of an audit, their limits, and contracts in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from ...classifiers.base import Classifier
from ...classifiers.encoded_set import EncodedSet
from ...errors import DataError
from ...evaluation.figures import N_FEWEST, explained_of, find_copies, say
from ...explanation.base import Explanation
from ...explanation.verdict import Level
from ...metrics.calibration import accuracy_interval
from ...pictures.object_masks import MaskSource
from ...progress import Progress
from ...spelling import nearest
from ...storage.features import FeatureStore
from ...storage.reading import read_text, readable, reason
from .drift import Drifted, DriftTest, known_of

Bound = Literal["worst", "value", "best"]
BOUNDS: tuple[str, ...] = get_args(Bound)
Side = Literal["at_least", "at_most"]
State = Literal["pass", "fail", "not measured"]
RANK: dict[Level, int] = {"not measured": 0, "do not rely": 1, "partly": 2, "believable": 3}
ENDS: dict[Bound, str] = {
    "worst": "the worse end of the interval",
    "value": "the figure",
    "best": "the better end of the interval",
}


@dataclass(frozen=True)
class Figure:
    """A measured value; if nothing was measured, ``meaning`` says why."""

    value: float | None
    interval: tuple[float, float] | None = None
    n: int = 0
    meaning: str = ""
    detail: Any = None


def missing(reason: str) -> Figure:
    """Return a figure without a value, and the reason."""
    return Figure(None, meaning=reason)


def share(inside: Bool[Tensor, " n"], meaning: str) -> Figure:
    """Return a share of the pictures with its Wilson interval."""
    return Figure(float(inside.float().mean()), accuracy_interval(inside), len(inside), meaning)


@dataclass(frozen=True)
class Limit:
    """The limit of a metric."""

    side: Side
    value: float
    bound: Bound = "value"
    required: bool = True
    level: str = ""

    def judged(self, figure: Figure) -> float | None:
        """Return the number that is compared with the limit."""
        if figure.value is None or figure.interval is None or self.bound == "value":
            return figure.value
        return figure.interval[(self.bound == "worst") != (self.side == "at_least")]

    def state(self, figure: Figure) -> State:
        """Return ``pass``, ``fail`` or ``not measured``."""
        value = self.judged(figure)
        if value is None:
            return "not measured"
        return "pass" if (value >= self.value if self.side == "at_least" else value <= self.value) else "fail"

    @property
    def told(self) -> str:
        return f"{self.side.replace('_', ' ')} {self.value:g}, by {ENDS[self.bound]}"

    def said(self, figure: Figure) -> str:
        """Return the name and value of the number that is compared with the limit."""
        value = self.judged(figure)
        if value is None:
            return ""
        end, state = ENDS["value" if figure.interval is None else self.bound], self.state(figure)
        # As pages round the interval's ends, from four decimals.
        shown = [f"{round(value, 4):.3f}", *(f"{value:.{digits}f}" for digits in range(4, 17))]
        return f"{end}, {next((s for s in shown if self.state(Figure(float(s))) == state), repr(value))}"

    def row(self, name: str, figure: Figure) -> dict[str, Any]:
        """Return a metric with its limit as JSON; ``broken`` is true if the metric is required and did not pass."""
        state = self.state(figure)
        return {
            "name": name, "title": CHECKS[name].title, "state": state, "broken": self.required and state != "pass",
            "value": None if figure.value is None else round(figure.value, 4),
            "interval": None if figure.interval is None else [round(end, 4) for end in figure.interval],
            "n": figure.n, "judged": self.judged(figure), "judged_by": self.said(figure),
            "limit": {k: v for k, v in vars(self).items() if k != "level" or v}, "asked": self.told,
            "meaning": figure.meaning,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Material:
    """A classifier and its predictions on labelled test pictures."""

    classifier: Classifier
    seen: EncodedSet
    logits: Float[Tensor, "n k"]
    grouped: bool
    n_unreadable: int
    n_explained: int
    masks: MaskSource | None
    store: FeatureStore | None
    seed: int
    progress: Progress

    @cached_property
    def right(self) -> Bool[Tensor, " n"]:
        return self.logits.argmax(1) == self.seen.labels

    @cached_property
    def copies(self) -> dict[str, Any] | None:
        """The training pictures among these; ``None`` if they are unknown."""
        return find_copies(self.classifier, self.seen, self.right)

    @property
    def caveat(self) -> str:
        """A sentence for every figure that training pictures make too high; empty if there are none."""
        note = say(self.copies, self.classifier.measures.get("held_out_accuracy"))
        return f" {note.partition('. The first: ')[0]}." if note else ""

    @cached_property
    def drift(self) -> Drifted | Figure:
        """The result of the drift test, or why it is missing."""
        try:
            known = known_of(self.classifier)
        except DataError as error:
            return missing(str(error))
        if min(len(known.names), len(self.seen)) < N_FEWEST:
            return missing("At least 10 test pictures and 10 training pictures are needed. Give more.")
        return DriftTest(seed=self.seed).compare(known, self.seen.pooled)

    @cached_property
    def explained(self) -> list[Explanation]:
        """Explanations of random pictures."""
        return explained_of(self.classifier, self.seen.items, self.n_explained, self.seed, self.store, self.progress)


Measure = Callable[[Material, Limit], Figure]


@dataclass(frozen=True)
class Check:
    """A metric that a contract can limit, with its name, texts for pages, default limit and range of the limit."""

    name: str
    title: str
    told: str
    cure: str
    limit: Limit
    measure: Measure
    low: float = 0.0
    high: float = 1.0


CHECKS: dict[str, Check] = {}
"""All metrics, in the order of reports."""


def check(
    title: str, told: str, cure: str, limit: Limit, *, name: str = "", low: float = 0.0, high: float = 1.0
) -> Any:
    """Register a function that computes a metric."""

    def register(measure: Measure) -> Measure:
        key = name or measure.__name__
        CHECKS[key] = Check(key, title, told, cure, limit, measure, low, high)
        return measure

    return register


LARGEST = 2**20
"""Largest size of a contract file, in bytes."""
HEAD = """\
# Limits for seewhy evaluate DATA -m MODEL --contract FILE. Delete the figures that you do not need.
#
# at_least or at_most   the limit
# bound                 the number that is compared with the limit: "value" (the figure), "worst" (the worse end of its
#                       95 % interval) or "best" (the better end)
# required              true: the audit fails if the figure misses its limit or was not measured; false: the figure is
#                       only reported
# level                 the lowest verdict that counts, "partly" or "believable"
"""


@dataclass(frozen=True)
class Contract:
    """Limits by metric name."""

    limits: Mapping[str, Limit]
    source: str = "default"

    @classmethod
    def preset(cls, required: Collection[str] = ()) -> Contract:
        """Return the default contract, in which the metrics named in ``required`` are required."""
        limits = {name: check.limit for name, check in CHECKS.items()}
        return cls({name: replace(x, required=x.required or name in required) for name, x in limits.items()})

    @classmethod
    def load(cls, path: str | Path) -> Contract:
        with readable(f"The contract {path}", "Write one with seewhy evaluate --write-contract FILE."):
            text = read_text(path, LARGEST)
        try:
            tables = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: a number with too many digits for Python
            raise DataError(f"The contract {path} is not valid TOML: {reason(error)}.") from None
        if not tables:
            raise DataError(f"The contract {path} must have at least one section, such as [accuracy].")
        limits = {name: _limit(name, table, f"The contract {path}") for name, table in tables.items()}
        return cls({name: limits[name] for name in CHECKS if name in limits}, str(path))

    def to_toml(self) -> str:
        """Return the contract as TOML with comments."""
        text = HEAD
        for name, limit in self.limits.items():
            text += f"\n# {CHECKS[name].told}\n[{name}]\n{limit.side} = {limit.value:g}\n"
            text += f'bound = "{limit.bound}"\nrequired = {"true" if limit.required else "false"}\n'
            text += f'level = "{limit.level}"\n' if limit.level else ""
        return text


def _limit(name: str, table: Any, lead: str) -> Limit:
    if name not in CHECKS:
        raise DataError(f"{lead} has the unknown section [{name}]. {_near(name, CHECKS)}")
    check, preset = CHECKS[name], CHECKS[name].limit
    side, example = preset.side, f"{preset.side} = {preset.value:g}"
    if not isinstance(table, dict):
        raise DataError(f"{lead} must have a section [{name}] with {example}, got {name} = {_shown(table)}.")
    levels = tuple(RANK)[2:] if preset.level else ()
    good: dict[str, tuple[Callable[[Any], bool], str]] = {
        "at_least": (lambda v: type(v) in (int, float) and check.low <= v <= check.high,
                     f"a number from {check.low:g} to {check.high:g}"),
        "bound": (lambda v: v in BOUNDS, f"one of {', '.join(BOUNDS)}"),
        "level": (lambda v: v in levels, f"one of {', '.join(levels)}"),
        "required": (lambda v: isinstance(v, bool), "true or false"),
    }  # fmt: skip
    known = ("at_least", "at_most", "bound", "required", *(("level",) if levels else ()))
    for key in table:
        if key not in known:
            raise DataError(f"{lead} has the unknown option {key!r} in [{name}]. {_near(key, known)}")
    if (sides := [key for key in known[:2] if key in table]) != [side]:
        given = " and ".join(sides) or "no limit"
        raise DataError(f"{lead} must set {side} in [{name}], such as {example}, got {given}.")
    for key, value in sorted(table.items(), key=lambda item: [side, "bound", "level", "required"].index(item[0])):
        fits, expected = good["at_least" if key == side else key]
        if not fits(value):
            raise DataError(f"{lead}: {key} in [{name}] must be {expected}, got {_shown(value)}.")
    bound, level = table.get("bound", preset.bound), table.get("level", preset.level)
    return Limit(side, float(table[side]), bound, table.get("required", True), level)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # too many digits for Python to convert
        return "a number of thousands of digits"
    except RecursionError:
        return "tables within tables"


def _near(name: str, known: Any) -> str:
    near = nearest(name, known, n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Choose one of {', '.join(known)}."
