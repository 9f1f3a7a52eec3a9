"""Types of parameters: their bounds, whether a value fits them, and their description in words."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from .errors import InputError

WORDS = {
    str: "a string", int: "a whole number", float: "a number", bool: "True or False", NoneType: "None",
    bytes: "bytes", Path: "a path",
}  # fmt: skip
TYPED = {**WORDS, str: "text", bool: "true or false", NoneType: "none"}
"""The same, of texts on the command line."""


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


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value has an annotated type; True for types that are not supported.

    >>> fits(3, int | None), fits(True, int), fits("ab", Sequence[str]), fits(3, float)
    (True, False, False, True)
    """
    origin, parts = get_origin(hint), get_args(hint)
    if len(alternatives(hint)) > 1:
        return any(fits(value, part) for part in alternatives(hint))
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is Annotated:
        bounds = [m for m in parts[1:] if isinstance(m, Bound)]
        return not bounds or (fits(value, parts[0]) and all(bound.holds(value) for bound in bounds))
    if hint is Any:
        return True
    if hint is bool:
        return type(value).__name__ in ("bool_", "bool") or (fits(value, int) and value in (0, 1))
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, os.PathLike)
    kind = origin or hint
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    if kind in (Sequence, Iterable, tuple) and parts:
        is_array = hasattr(value, "__array__") and getattr(value, "ndim", 0) == 1
        is_row = isinstance(value, Iterable if kind is Iterable else Sequence) or (is_array and kind is not Iterable)
        if not is_row or isinstance(value, str | bytes):
            return False
        return iter(value) is value or all(fits(v, parts[0]) for v in value)  # an iterator is not used up
    return isinstance(value, kind)


def expected(hint: Any) -> str:
    """Describe a type in words.

    >>> expected(str | int | None), expected(Sequence[str]), expected(Literal["a", "b"])
    ('a string, a whole number or None', 'a list of strings', "'a' or 'b'")
    """
    origin, parts = get_origin(hint), get_args(hint)
    if len(kinds := alternatives(hint)) > 1:
        names = [n for p in kinds if p is not Path or str not in kinds for n in _choices(p) or [expected(p)]]
        return in_turn(["a name or path" if n == "a string" and Path in kinds else n for n in names])
    if origin is Literal:
        return in_turn(_choices(hint))
    if origin is Annotated:
        return f"{expected(parts[0])}{parts[1]}"
    if hint in WORDS:
        return WORDS[hint]
    if origin in (Sequence, Iterable, tuple):
        return f"a list of {many(expected(parts[0]))}" if parts else "a list of values"
    if origin in (Mapping, dict) or hint in (Mapping, dict):
        return "a dictionary"
    if (origin is not None and not isinstance(origin, type)) or origin is Callable:
        return "a function"
    return article(getattr(origin or hint, "__name__", str(hint)))


def typed(hint: Any) -> str:
    """Describe a type as a text on the command line; other types can be made only in Python.

    >>> typed(int | None), typed(tuple[float, ...]), typed(Literal["a", "b"])
    ('a whole number or none', 'numbers separated by commas', 'a or b')
    """
    words: list[str] = []
    for kind in alternatives(hint):
        if get_origin(kind) is Literal:
            words += map(str, get_args(kind))
        elif get_origin(kind) is tuple and get_args(kind)[0] in TYPED:
            words.append(f"{many(TYPED[get_args(kind)[0]])} separated by commas")
        elif plain(kind) in TYPED:
            words.append("".join([TYPED[plain(kind)], *map(str, getattr(kind, "__metadata__", ()))]))
    return in_turn(words) or "a value made in Python"


def plain(hint: Any) -> Any:
    """Return a type without its bound."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(plain(hint)) in (Union, types.UnionType) else (hint,)


def _choices(hint: Any) -> list[str]:
    return [*map(repr, get_args(hint))] if get_origin(hint) is Literal else []


def many(noun: str) -> str:
    return noun.removeprefix("a ").removeprefix("an ") + "s"


def in_turn(words: Iterable[str]) -> str:
    """Join alternatives.

    >>> in_turn(["a", "b", "c"]), in_turn([])
    ('a, b or c', '')
    """
    *most, last = dict.fromkeys(words) or ("",)
    return f"{', '.join(most)} or {last}" if most else last


def article(name: str) -> str:
    """Return a noun with its article.

    >>> article("int"), article("Encoder"), article("list"), article("NoneType")
    ('an int', 'an Encoder', 'a list', 'None')
    """
    if name == "NoneType":
        return "None"
    return f"{'an' if name[:1].lower() in tuple('aeio') else 'a'} {name}"


@cache
def limits(cls: Any) -> dict[str, Any]:
    """Return the type, without ``None``, of each field, or of its values, that has a bound or choices."""
    found: dict[str, Any] = {}
    hints = get_type_hints(cls, include_extras=True)
    for name in [one.name for one in fields(cls)]:
        kinds = [kind for kind in alternatives(hints[name]) if kind is not NoneType]
        kinds = [get_args(kind)[0] if get_origin(kind) is tuple else kind for kind in kinds]
        if any(_is_limited(kind) for kind in kinds):
            found[name] = Union[tuple(kinds)]  # noqa: UP007
    return found


def _is_limited(kind: Any) -> bool:
    return get_origin(kind) is Literal or any(isinstance(one, Bound) for one in getattr(kind, "__metadata__", ()))


def check_fields(settings: Any, name: str | None = None) -> None:
    """Check every field, and each value of a tuple, against its bound or choices; ``None`` is always allowed."""
    kind: Any = type(settings)
    for field, hint in limits(kind).items():
        own = getattr(settings, field)
        wrong = [v for v in (own if isinstance(own, tuple | list) else (own,)) if v is not None and not fits(v, hint)]
        if wrong:
            given = f"{wrong[0]:g}" if isinstance(wrong[0], float) else repr(wrong[0])
            preset = getattr(kind, field, None)
            cure = "" if preset is None else f" Leave it out to use {preset!r}."
            raise InputError(f"`{field}` of {name or settings.name} must be {expected(hint)}, got {given}.{cure}")


class Checked:
    """Base class of settings that are checked when they are made; errors name them by ``noun`` or ``name``."""

    noun: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_fields(self, self.noun or None)
