"""Bounds of numeric settings in their types, and the check of a setting against them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from .errors import InputError


@dataclass(frozen=True)
class Bound:
    """A range from ``least`` to ``most``, each included unless ``open``; infinity and NaN are never allowed."""

    least: float = float("-inf")
    most: float = float("inf")
    open: tuple[bool, bool] = (False, False)

    def holds(self, value: float) -> bool:
        low = value > self.least if self.open[0] else value >= self.least
        high = value < self.most if self.open[1] else value <= self.most
        return low and high and abs(value) < float("inf")

    def __str__(self) -> str:
        ends = abs(self.least) < float("inf"), self.most < float("inf")
        if all(ends) and not self.open[0]:
            return f" from {self.least:g} to {'below ' * self.open[1]}{self.most:g}"
        low = f" {'above' if self.open[0] else 'of at least'} {self.least:g}" if ends[0] else ""
        high = f" {'below' if self.open[1] else 'of at most'} {self.most:g}" if ends[1] else ""
        return f"{low} and{high}".replace("and of", "and") if all(ends) else low + high


Count = Annotated[int, Bound(1)]
Natural = Annotated[int, Bound(0)]
Finite = Annotated[float, Bound()]
Positive = Annotated[float, Bound(0, open=(True, False))]
NotNegative = Annotated[float, Bound(0)]
Part = Annotated[float, Bound(0, 1)]
OpenPart = Annotated[float, Bound(0, 1, open=(False, True))]
"""At least 0 and less than 1."""
InnerPart = Annotated[float, Bound(0, 1, open=(True, True))]
SomePart = Annotated[float, Bound(0, 1, open=(True, False))]
"""Greater than 0 and at most 1."""


@cache
def limits(cls: Any) -> list[tuple[str, str, Any]]:
    """Return name, description and bound (or choices) of each bounded field."""
    hints = get_type_hints(cls, include_extras=True)
    found: list[tuple[str, str, Any]] = []
    for name in [one.name for one in fields(cls)]:
        for kind in (hints[name], *get_args(hints[name])):
            choices = tuple(c for k in (kind, *get_args(kind)) if get_origin(k) is Literal for c in get_args(k))
            if get_origin(kind) is Annotated and isinstance(kind.__metadata__[0], Bound):
                whole = "whole number" if kind.__origin__ is int else "number"
                found.append((name, f"a {whole}{kind.__metadata__[0]}", kind.__metadata__[0]))
            elif choices:
                *most, last = map(repr, choices)
                found.append((name, f"{', '.join(most)} or {last}" if most else f"{last} or None", choices))
                break
    return found


def check_fields(settings: Any, name: str | None = None) -> None:
    """Check every field, and each value of a tuple, against its bound or choices; ``None`` is always allowed."""
    kind: Any = type(settings)
    for field, expected, limit in limits(kind):
        own = getattr(settings, field)
        values = own if isinstance(own, tuple | list) else () if own is None else (own,)
        wrong = [v for v in values if not (v in limit if isinstance(limit, tuple) else limit.holds(v))]
        if wrong:
            given = f"{wrong[0]:g}" if isinstance(wrong[0], float) else repr(wrong[0])
            preset = next(one.default for one in fields(kind) if one.name == field)
            cure = "" if preset in (MISSING, None) else f" Leave it out to use {preset!r}."
            raise InputError(f"`{field}` of {name or settings.name} must be {expected}, got {given}.{cure}")


class Checked:
    """Base class of settings that are checked when they are made; errors name them by ``noun`` or ``name``."""

    noun: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_fields(self, self.noun or None)
