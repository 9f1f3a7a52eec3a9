"""The figures of an audit, the limits they must keep, and a contract of them, read from and written as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...classifiers.base import Classifier
from ...errors import DataError
from ...evaluation.figures import Judged, explained_of
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
    """What was measured; without a value, ``meaning`` is why not."""

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

    def state(self, figure: Figure) -> State:
        """Whether the limit is kept."""
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
        """
        value = self.judged(figure)
        if value is None:
            return ""
        end, state = ENDS["value" if figure.interval is None else self.bound], self.state(figure)
        # As pages round the interval's ends, from four decimals.
        shown = [f"{round(value, 4):.3f}", *(f"{value:.{digits}f}" for digits in range(4, 17))]
        return f"{end}, {next((s for s in shown if self.state(Figure(float(s))) == state), repr(value))}"

    def row(self, name: str, figure: Figure) -> dict[str, Any]:
        """A figure held against it, as JSON; it breaks the contract where it is required and not kept."""
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
    def explained(self) -> list[Explanation]:
        """Cards of pictures drawn at random; made when a figure first asks for them."""
        return explained_of(self.classifier, self.items, self.n_explained, self.seed, self.store, self.progress)


Measure = Callable[[Material, Limit], Figure]


@dataclass(frozen=True)
class Check:
    """One figure: its name in contracts, its title on pages, what it is and its limit for the contract that is written,
    how it is measured, and between which numbers a limit makes sense."""

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
        text = HEAD
        for name, limit in self.limits.items():
            text += f"\n# {CHECKS[name].told}\n[{name}]\n{limit.side} = {limit.value:g}\n"
            text += f'bound = "{limit.bound}"\nrequired = {"true" if limit.required else "false"}\n'
            text += f'level = "{limit.level}"\n' if limit.level else ""
        return text


def _limit(name: str, table: Any, lead: str) -> Limit:
    if name not in CHECKS:
        raise DataError(f"{lead} names the figure {name!r}, which there is not. {_near(name, CHECKS)}")
    check, preset = CHECKS[name], CHECKS[name].limit
    side, example = preset.side, f"{preset.side} = {preset.value:g}"
    if not isinstance(table, dict):
        raise DataError(
            f"{lead} says {name} = {_shown(table)}. A table was expected. Write [{name}], and {example} below."
        )
    levels = tuple(RANK)[2:] if preset.level else ()
    good: dict[str, tuple[Callable[[Any], bool], str]] = {
        "at_least": (lambda v: type(v) in (int, float) and check.low <= v <= check.high,
                     f"A number from {check.low:g} to {check.high:g}"),
        "bound": (lambda v: v in BOUNDS, f"One of {', '.join(BOUNDS)}"),
        "level": (lambda v: v in levels, f"One of {', '.join(levels)}"),
        "required": (lambda v: isinstance(v, bool), "true or false"),
    }  # fmt: skip
    known = ("at_least", "at_most", "bound", "required", *(("level",) if levels else ()))
    for key in table:
        if key not in known:
            raise DataError(f"{lead} says {key!r} of {name}, which there is not. {_near(key, known)}")
    if (sides := [key for key in known[:2] if key in table]) != [side]:
        given = " and ".join(sides) or "no limit"
        raise DataError(f"{lead} gives {name} {given}. {side} was expected. Write {example}.")
    for key, value in sorted(table.items(), key=lambda item: [side, "bound", "level", "required"].index(item[0])):
        fits, expected = good["at_least" if key == side else key]
        if not fits(value):
            raise DataError(f"{lead} says {key} = {_shown(value)} of {name}. {expected} was expected. Correct it.")
    bound, level = table.get("bound", preset.bound), table.get("level", preset.level)
    return Limit(side, float(table[side]), bound, table.get("required", True), level)


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
