"""Read the fields of a class, and set them from values or texts."""

from __future__ import annotations

import builtins
import inspect
import math
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .bounds import alternatives, fits, plain, typed
from .errors import InputError, UnknownNameError
from .registry import is_registered

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
    """Return the types of a class's fields, without bounds, which the class itself checks."""
    hints: dict[str, Any] = {}
    for kind in reversed(cls.__mro__):
        names = _Names(vars(sys.modules[kind.__module__]))
        own = type("Own", (), {"__annotations__": inspect.get_annotations(kind)})
        hints |= get_type_hints(own, {}, names)
    return hints


def settings_of(method: Any) -> tuple[Setting, ...]:
    """Return the settings of a method.

    >>> from seewhy.attributions.grad_cam import GradCAM
    >>> [f"{s.name}={s.default} ({s.kind})" for s in settings_of(GradCAM)]
    ['layer=none (text or none)', 'counterfactual=false (true or false)']
    """
    hints = hints_of(method)
    return tuple(
        Setting(f.name, typed(hints[f.name]), "" if f.default is MISSING else written(f.default))
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
    for kind in sorted(alternatives(hint), key=lambda kind: kind is str):  # every value is a text
        converted = _as(value, plain(kind))
        if converted is not _UNSET and fits(converted, hint):
            return converted
    raise InputError(f"`{name}` of {owner} must be {typed(hint)}, got {written(value)}.{_see(owner)}")


def _see(owner: str) -> str:
    """Return where the settings of a method or a command are described; empty for a class."""
    if owner.startswith("seewhy "):
        return f" See: {owner} --help"
    return f" See: seewhy methods {owner}" if is_registered(owner) else ""


def _as(value: Any, kind: Any) -> Any:
    value = _parsed(value.strip(), kind) if isinstance(value, str) and kind is not str else value
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        parts = tuple(_as(part, get_args(kind)[0]) for part in value)
        return _UNSET if any(part is _UNSET for part in parts) else parts
    if not fits(value, kind) or (kind is float and not math.isfinite(value)):
        return _UNSET
    return float(value) if kind is float else value


def _parsed(text: str, kind: Any) -> Any:
    """Return the value of this type that a text stands for, or the text."""
    if get_origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}.get(text, text)
    if kind in (bool, NoneType):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    if kind is Path and text:
        return Path(text)
    return text.split(",") if get_origin(kind) is tuple else text


def written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
