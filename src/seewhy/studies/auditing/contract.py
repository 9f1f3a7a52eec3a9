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
from .figures import CHECKS, RANK
from .limit import BOUNDS, Limit

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
