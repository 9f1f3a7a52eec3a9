"""Read the fields of a class, and set them from values or texts."""

from __future__ import annotations

import builtins
import inspect
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from .errors import InputError, UnknownNameError
from .registry import is_registered

_WORDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "none", Path: "a path",
}  # fmt: skip
_UNSET = object()


@dataclass(frozen=True)
class Setting:
    """A field of a method; ``kind`` describes its type in words, and ``default`` is its default as text."""

    name: str
    kind: str
    default: str


class _MadeInPython:
    """Stands for a type that is imported only for type checkers; no text can have this type."""


class _Names(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        return _MadeInPython


def hints_of(cls: Any) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for kind in reversed(cls.__mro__):
        names = _Names(vars(sys.modules[kind.__module__]))
        own = type("Own", (), {"__annotations__": inspect.get_annotations(kind)})
        hints |= get_type_hints(own, {}, names, include_extras=True)
    return hints


def settings_of(method: Any) -> tuple[Setting, ...]:
    """Return the settings of a method.

    >>> from seewhy.attributions.grad_cam import GradCAM
    >>> [f"{s.name}={s.default} ({s.kind})" for s in settings_of(GradCAM)]
    ['layer=none (text or none)', 'counterfactual=false (true or false)']
    """
    hints = hints_of(method)
    return tuple(
        Setting(f.name, in_words(hints[f.name]), "" if f.default is MISSING else written(f.default))
        for f in fields(method)
        if f.init
    )


def documented(thing: Any) -> tuple[str, dict[str, tuple[str, str]]]:
    """Split a docstring into the text before ``Args:`` and a dictionary from each name to its form and its meaning.

    The entries of a class include those of its bases.
    """
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", inspect.getdoc(thing) or "").replace("`", "")
    about, *parts = re.split(r"^(?:Args|Attributes):\s*$", text, flags=re.MULTILINE)
    entry = r"^    (\w+)(?: \(([^)]*)\))?: (.*?)(?=^    \w+(?: \([^)]*\))?: |^\S|\Z)"
    entries = re.findall(entry, parts[-1] if parts else "", re.MULTILINE | re.DOTALL)
    bases = [base for base in getattr(thing, "__bases__", ()) if base.__module__.startswith("seewhy")]
    inherited = {name: told for base in reversed(bases) for name, told in documented(base)[1].items()}
    return about.strip(), inherited | {name: (form, " ".join(meaning.split())) for name, form, meaning in entries}


def configured(method: Any, given: Mapping[str, Any], command: str = "") -> Any:
    """Return an instance with some fields set, from a class or an instance; texts are converted to the field's type.

    An error names the ``command`` if the class has no name that users know.
    """
    cls = method if isinstance(method, type) else type(method)
    hints, known = hints_of(cls), [s.name for s in settings_of(cls)]
    values, name_of = {}, getattr(cls, "name", command or cls.__name__)
    for name, value in given.items():
        if name not in known:
            if not known:
                raise InputError(f"{name_of} has no settings, got {name!r}. Leave it out.")
            raise UnknownNameError(f"setting of {name_of}", name, known)
        values[name] = value_of(name_of, name, value, hints[name])
    return method(**values) if isinstance(method, type) else replace(method, **values)


def value_of(owner: str, name: str, value: Any, hint: Any) -> Any:
    for kind in _alternatives(hint):
        converted = _as(value, kind)
        if converted is not _UNSET and not (name == "batch_size" and converted is not None and converted < 1):
            return converted
    above = " above 0" if name == "batch_size" else ""
    raise InputError(f"`{name}` of {owner} must be {in_words(hint)}{above}, got {written(value)}.{_see(owner)}")


def _see(owner: str) -> str:
    """Return where the settings of a method or a command are described; empty for a class."""
    if owner.startswith("seewhy "):
        return f" See: {owner} --help"
    return f" See: seewhy methods {owner}" if is_registered(owner) else ""


def _as(value: Any, kind: Any) -> Any:
    kind = _plain(kind)
    text = value.strip() if isinstance(value, str) else None
    origin = get_origin(kind) or kind
    if origin is Literal:
        return next((c for c in get_args(kind) if value == c or text == str(c)), _UNSET)
    if kind is NoneType:
        return None if value is None or (text or "").lower() == "none" else _UNSET
    if kind is bool:
        words = {"true": True, "false": False}
        return value if isinstance(value, bool) else words.get((text or "").lower(), _UNSET)
    if kind in (int, float):
        return _number(value if text is None else text, kind)
    if origin is tuple:
        values = value if text is None else text.split(",")
        parts = [_as(part, get_args(kind)[0]) for part in values] if isinstance(values, list | tuple) else [_UNSET]
        return _UNSET if any(part is _UNSET for part in parts) else tuple(parts)
    if kind is Path and text:
        return Path(text)
    return value if not isinstance(origin, type) or isinstance(value, origin) else _UNSET


def _number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return _UNSET
    try:
        number = float(value)
        if kind is int:
            return int(value) if not isinstance(value, float) or value == int(value) else _UNSET
        return number if math.isfinite(number) else _UNSET
    except (ValueError, OverflowError):
        return _UNSET


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a field's type, with text last because every value is a text."""
    hint = _plain(hint)
    if get_origin(hint) in (Literal, tuple):
        return (hint,)
    return tuple(sorted(get_args(hint) or (hint,), key=lambda kind: kind is str))


def in_words(hint: Any) -> str:
    """Describe a field's type in words.

    >>> in_words(int | None), in_words(tuple[float, ...])
    ('a whole number or none', 'numbers separated by commas')
    """
    words, hint = [], _plain(hint)
    for kind in (hint,) if get_origin(hint) in (Literal, tuple) else map(_plain, get_args(hint) or (hint,)):
        if get_origin(kind) is Literal:
            words += [str(choice) for choice in get_args(kind)]
        elif get_origin(kind) is tuple and _plain(get_args(kind)[0]) in _WORDS:
            words.append(_WORDS[_plain(get_args(kind)[0])].removeprefix("a ") + "s separated by commas")
        elif kind in _WORDS:  # other types can be passed in Python but not on the command line
            words.append(_WORDS[kind])
    if not words:
        return "a value made in Python"
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
