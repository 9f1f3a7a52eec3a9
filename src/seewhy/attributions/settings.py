"""A method's fields by name: what there is to set, and a method with some of them set, from values or from text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from ..errors import InputError, UnknownNameError
from .base import Attribution

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "none"}
_UNSET = object()


@dataclass(frozen=True)
class Setting:
    """One field of a method.

    Attributes:
        name: the field's.
        kind: what it takes, in words.
        default: what stands there when nothing is set, as one would write it.
    """

    name: str
    kind: str
    default: str


def settings_of(method: type[Attribution]) -> tuple[Setting, ...]:
    """What there is to set.

    Example:
        >>> from seewhy.attributions.grad_cam import GradCAM
        >>> [f"{s.name}={s.default} ({s.kind})" for s in settings_of(GradCAM)]
        ['layer=none (a text or none)', 'counterfactual=false (true or false)']
    """
    hints = get_type_hints(method)
    found: Any = fields(cast(Any, method))
    return tuple(
        Setting(f.name, _kind(hints[f.name]), "" if f.default is MISSING else _written(f.default)) for f in found
    )


def configured(method: type[Attribution] | Attribution, given: Mapping[str, Any]) -> Attribution:
    """A method with some fields set; an instance keeps its other fields."""
    cls = method if isinstance(method, type) else type(method)
    hints, known = get_type_hints(cls), [s.name for s in settings_of(cls)]
    values, of = {}, getattr(cls, "name", cls.__name__)
    for name, value in given.items():
        if name not in known:
            raise _unknown(of, name, known)
        values[name] = _value(of, name, value, hints[name])
    return replace(cast(Any, method), **values) if isinstance(method, Attribution) else method(**values)


def _unknown(method: str, name: str, known: list[str]) -> Exception:
    if not known:
        return InputError(f"{method} was given {name!r}. It has nothing to set. Leave it out.")
    return UnknownNameError(f"setting of {method}", name, known)


def _value(method: str, name: str, value: Any, hint: Any) -> Any:
    """The value as the field's type."""
    for kind in _alternatives(hint):
        found = _as(value, kind)
        if found is not _UNSET and not (name == "batch_size" and found is not None and found < 1):
            return found
    above = " above zero" if name == "batch_size" else ""
    raise InputError(
        f"{method} was given {name}={_written(value)}. {_kind(hint).capitalize()}{above} was expected. "
        f"See: seewhy methods {method}"
    )


def _as(value: Any, kind: Any) -> Any:
    """One alternative of a field's type, or ``_UNSET`` where the value is not of it."""
    text = value.strip() if isinstance(value, str) else None
    if get_origin(kind) is Literal:
        return next((c for c in get_args(kind) if value == c or text == str(c)), _UNSET)
    if kind is NoneType:
        return None if value is None or (text or "").lower() == "none" else _UNSET
    if kind is bool:
        words = {"true": True, "false": False}
        return value if isinstance(value, bool) else words.get((text or "").lower(), _UNSET)
    if kind in (int, float):
        return _number(value if text is None else text, kind)
    return value if isinstance(value, kind) else _UNSET


def _number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return _UNSET
    try:
        found = float(value)
        if kind is int:
            return int(value) if not isinstance(value, float) or value == int(value) else _UNSET
        return found if math.isfinite(found) else _UNSET
    except (ValueError, OverflowError):
        return _UNSET


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types a field takes; text last, since anything is text, and none before it."""
    kinds = (hint,) if get_origin(hint) is Literal else get_args(hint) or (hint,)
    return tuple(sorted(kinds, key=lambda kind: kind is str))


def _kind(hint: Any) -> str:
    """The field's type in words."""
    words = []
    for kind in (hint,) if get_origin(hint) is Literal else get_args(hint) or (hint,):
        if get_origin(kind) is Literal:
            words += [str(choice) for choice in get_args(kind)]
        elif kind in _WORDS:  # another type can be given as a value, and not be written
            words.append(_WORDS[kind])
    if not words:
        return "a value made in Python"
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _written(value: Any) -> str:
    """A value as one would write it after ``NAME=``."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
