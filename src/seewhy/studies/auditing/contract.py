"""A contract: which figures of an audit must keep which limits, read from and written as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...spelling import nearest
from ...storage.reading import read_text, reason
from .around import Background, OnePlace
from .cards import RANK, Agreement, LikeVerdict, WhereVerdict, WordsMeaning, WordsVerdict
from .changes import DriftP, FarPictures
from .check import Check
from .decisions import Accuracy, CalibrationError, Coverage, Unreadable, UnseenSure
from .fitted_on import Copies
from .limit import BOUNDS, Limit
from .parts import GroupGap

CHECKS: Mapping[str, Check] = {
    check.name: check
    for check in (
        Accuracy(), CalibrationError(), Coverage(), UnseenSure(), GroupGap(), Copies(), WhereVerdict(), LikeVerdict(),
        WordsVerdict(), WordsMeaning(), Agreement(), Background(), OnePlace(), DriftP(), FarPictures(), Unreadable(),
    )
}  # fmt: skip
"""Every figure that a contract can name, in the order of reports."""
LARGEST = 2**20
"""Bytes of a contract, at most."""
HEAD = """\
# What a model must keep, for seewhy audit MODEL DATA --contract FILE. Delete what you do not ask for.
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
    """Limits by the name of their figure.

    Attributes:
        limits: in the order of :data:`CHECKS`.
        source: where they come from.
    """

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
                "seewhy audit --write-contract FILE."
            ) from None
        try:
            tables = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # beside TOMLDecodeError, numbers of thousands of digits
            raise DataError(f"The contract {path} is no TOML: {reason(error)}. Correct it there.") from None
        if not tables:
            raise DataError(
                f"The contract {path} asks for nothing. A figure, at least, was expected, such as [accuracy]. Add one."
            )
        limits = {name: _limit(name, table, str(path)) for name, table in tables.items()}
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


def _limit(name: str, table: Any, path: str) -> Limit:
    if name not in CHECKS:
        raise DataError(f"The contract {path} names the figure {name!r}, which there is not. {_near(name, CHECKS)}")
    check = CHECKS[name]
    if not isinstance(table, dict):
        raise DataError(
            f"The contract {path} says {name} = {_shown(table)}. A table was expected. Write [{name}], and "
            f"{check.side} = {check.preset:g} below."
        )
    known = ("at_least", "at_most", "bound", "required", *(("level",) if check.level else ()))
    for key in table:
        if key not in known:
            raise DataError(f"The contract {path} says {key!r} of {name}, which there is not. {_near(key, known)}")
    sides = [side for side in ("at_least", "at_most") if side in table]
    if sides != [check.side]:
        raise DataError(
            f"The contract {path} gives {name} {' and '.join(sides) or 'no limit'}. {check.side} was expected. "
            f"Write {check.side} = {check.preset:g}."
        )
    value = table[check.side]
    if isinstance(value, bool) or not isinstance(value, int | float) or not check.low <= value <= check.high:
        raise DataError(
            f"The contract {path} says {check.side} = {_shown(value)} of {name}. A number from {check.low:g} to "
            f"{check.high:g} was expected. Correct it."
        )
    bound = _one_of(path, name, "bound", table.get("bound", check.bound), BOUNDS)
    level = table.get("level", check.level)
    if check.level:
        level = _one_of(path, name, "level", level, tuple(RANK)[2:])
    required = table.get("required", True)
    if not isinstance(required, bool):
        raise DataError(
            f"The contract {path} says required = {_shown(required)} of {name}. true or false was expected. Correct it."
        )
    return Limit(check.side, float(value), bound, required, level)  # type: ignore[arg-type]


def _one_of(path: str, name: str, key: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise DataError(
            f"The contract {path} says {key} = {_shown(value)} of {name}. One of {', '.join(known)} was "
            "expected. Correct it."
        )
    return str(value)


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
