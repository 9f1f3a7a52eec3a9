"""The figures of an audit, the limits they must keep, and a contract of them, read from and written as TOML."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...classifiers.base import Classifier
from ...errors import DataError
from ...evaluation.figures import Judged
from ...explanation.base import Explanation
from ...explanation.verdict import Level
from ...metrics.calibration import accuracy_interval
from ...pictures.object_masks import MaskSource
from ...pictures.samples import Sample
from ...progress import Progress
from ...spelling import nearest
from ...storage.features import FeatureStore
from ...storage.reading import read_text, reason

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


LARGEST = 2**20
"""Bytes of a contract, at most."""
HEAD = """\
# What a model must keep, for seewhy evaluate DATA -m MODEL --contract FILE. Delete what you do not ask for.
#
# at_least or at_most   the limit
# bound                 what is held against it: "value", the figure itself; "worst", the end of its 95 % interval that
#                       is worse, so that it passes only where the limit is shown to be kept; "best", the better end,
#                       so that it fails only where the limit is shown to be broken
# required              whether the contract is broken where the limit is not kept, or the figure cannot be measured;
#                       with false it is measured and told, and breaks nothing
# level                 of verdicts: the least that counts, "partly" or "believable"
"""


@dataclass(frozen=True)
class Contract:
    """Limits by the name of their figure."""

    limits: Mapping[str, Limit]
    source: str = "the one of this version"

    @classmethod
    def preset(cls, required: Collection[str] = ()) -> Contract:
        """What is asked for where nobody says otherwise."""
        limits = {name: check.limit for name, check in CHECKS.items()}
        return cls({name: replace(x, required=x.required or name in required) for name, x in limits.items()})

    @classmethod
    def load(cls, path: str | Path) -> Contract:
        """Read one."""
        try:
            text = read_text(path, LARGEST)
        except OSError as error:
            raise DataError(
                f"The contract {path} cannot be read: {reason(error)}. A TOML file was expected. Write one with "
                "seewhy evaluate --write-contract FILE."
            ) from None
        try:
            tables = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # beside TOMLDecodeError, numbers of thousands of digits
            raise DataError(f"The contract {path} is no TOML: {reason(error)}. Correct it there.") from None
        if not tables:
            raise DataError(
                f"The contract {path} asks for nothing. A figure, at least, was expected, such as [accuracy]. Add one."
            )
        limits = {name: _limit(name, table, f"The contract {path}") for name, table in tables.items()}
        return cls({name: limits[name] for name in CHECKS if name in limits}, str(path))

    def to_toml(self) -> str:
        """With a comment on everything."""
        return HEAD + "".join(_lines(self.limits))


def _lines(limits: Mapping[str, Limit]) -> Iterator[str]:
    for name, limit in limits.items():
        yield f"\n# {CHECKS[name].told}\n[{name}]\n{limit.side} = {limit.value:g}\n"
        yield f'bound = "{limit.bound}"\nrequired = {"true" if limit.required else "false"}\n'
        if limit.level:
            yield f'level = "{limit.level}"\n'


def _limit(name: str, table: Any, lead: str) -> Limit:
    if name not in CHECKS:
        raise DataError(f"{lead} names the figure {name!r}, which there is not. {_near(name, CHECKS)}")
    check, preset = CHECKS[name], CHECKS[name].limit
    if not isinstance(table, dict):
        raise DataError(
            f"{lead} says {name} = {_shown(table)}. A table was expected. Write [{name}], and "
            f"{preset.side} = {preset.value:g} below."
        )
    known = ("at_least", "at_most", "bound", "required", *(("level",) if preset.level else ()))
    for key in table:
        if key not in known:
            raise DataError(f"{lead} says {key!r} of {name}, which there is not. {_near(key, known)}")
    sides = [side for side in ("at_least", "at_most") if side in table]
    if sides != [preset.side]:
        raise DataError(
            f"{lead} gives {name} {' and '.join(sides) or 'no limit'}. {preset.side} was expected. "
            f"Write {preset.side} = {preset.value:g}."
        )

    def checked(key: str, value: Any, good: bool, expected: str) -> Any:
        if not good:
            raise DataError(f"{lead} says {key} = {_shown(value)} of {name}. {expected} was expected. Correct it.")
        return value

    value, required = table[preset.side], table.get("required", True)
    bound, level = table.get("bound", preset.bound), table.get("level", preset.level)
    levels = tuple(RANK)[2:] if preset.level else (preset.level,)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = is_number and check.low <= value <= check.high
    checked(preset.side, value, inside, f"A number from {check.low:g} to {check.high:g}")
    checked("bound", bound, bound in BOUNDS, f"One of {', '.join(BOUNDS)}")
    checked("level", level, level in levels, f"One of {', '.join(levels)}")
    checked("required", required, isinstance(required, bool), "true or false")
    return Limit(preset.side, float(value), bound, required, level)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    except RecursionError:
        return "tables within tables"


def _near(name: str, known: Any) -> str:
    near = nearest(name, known, n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are {', '.join(known)}."
