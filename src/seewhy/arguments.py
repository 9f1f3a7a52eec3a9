"""Check arguments of public functions against their annotations; ``Annotated`` arguments are checked elsewhere."""

from __future__ import annotations

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from .bounds import Bound
from .errors import InputError
from .spelling import nearest
from .undisturbed import undisturbed

P = ParamSpec("P")
R = TypeVar("R")

CURES = {
    ("Module", "Encoder"): "Make an encoder of the network with seewhy.from_module(module, transform=...)",
    ("Module", "Classifier"): "Write seewhy.pretrained(seewhy.from_module(module, transform=...))",
    ("Classifier", "Encoder"): "Give its encoder: classifier.encoder",
    ("Encoder", "Classifier"): "Make a classifier of it, as seewhy.pretrained(encoder) does",
    ("Recipe", "Encoder"): "Call the recipe itself: recipe.fit(encoder, samples)",
}
"""Advice on a wrong argument, by the given type and the required type."""

_WORDS = {
    str: "a string", int: "a whole number", float: "a number", bool: "True or False", type(None): "None",
    bytes: "bytes", Path: "a path",
}  # fmt: skip


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to check its arguments by its annotations, and to run :func:`undisturbed`.

    >>> @checked
    ... def draw(side: int, *, colour: str | None = None) -> None: ...
    >>> draw("7")
    Traceback (most recent call last):
    ...
    seewhy.errors.InputError: `side` of draw() must be a whole number, got '7' (a str).
    """
    signature, work = inspect.signature(function), undisturbed(function)

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        __tracebackhide__ = True  # a notebook leaves it out of a traceback
        _refuse(function, signature, args, keywords)
        return work(*args, **keywords)

    call.__signature__ = _spelt_out(function, signature)  # type: ignore[attr-defined]
    return call


def _spelt_out(function: Callable[..., Any], signature: inspect.Signature) -> inspect.Signature:
    """Return the signature with its ``Unpack``ed options one by one, for ``help`` and completion."""
    *own, last = signature.parameters.values()
    if last.kind is not inspect.Parameter.VAR_KEYWORD or not str(last.annotation).startswith("Unpack["):
        return signature
    options = inspect.unwrap(function).__globals__[str(last.annotation)[7:-1]].__annotations__
    kind = inspect.Parameter.KEYWORD_ONLY
    spelt = [
        inspect.Parameter(name, kind, default=..., annotation=getattr(hint, "__forward_arg__", hint))
        for name, hint in options.items()
    ]
    return signature.replace(parameters=[*own, *spelt])


def _refuse(
    function: Callable[..., Any], signature: inspect.Signature, args: Sequence[Any], keywords: Mapping[str, Any]
) -> None:
    hints, options, takes_any = _hints(function)
    name = function.__qualname__.rpartition(".__init__")[0] or function.__name__
    if not takes_any:
        for keyword in keywords:
            if keyword not in signature.parameters and keyword not in options:
                raise InputError(_unknown(name, keyword, keywords[keyword], hints, options))
    try:
        bound = signature.bind(*args, **keywords)
    except TypeError as error:
        said = f"{error}".replace("'", "")
        known = ", ".join(n for n in hints if n in signature.parameters)
        raise InputError(f"{name}() cannot be called like this: {said}. It takes {known}.") from None
    for parameter, value in bound.arguments.items():
        if signature.parameters[parameter].kind is inspect.Parameter.VAR_KEYWORD:
            for option, given in value.items():
                _check(name, option, given, options.get(option, Any))
        elif parameter in hints:
            _check(name, parameter, value, hints[parameter])


def _check(function: str, name: str, value: Any, hint: Any) -> None:
    if not fits(value, hint):
        kind, cure = article(type(value).__name__), _cure(value, hint)
        shown = f"{value!r} ({kind})" if _is_plain(value) else kind
        raise InputError(f"`{name}` of {function}() must be {expected(hint)}, got {shown}.{cure}")


@functools.cache
def _hints(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return the annotations of the parameters and of ``Unpack``ed options, and whether any keyword is allowed."""
    raw = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    space = getattr(inspect.unwrap(function), "__globals__", {})
    hints = typing.get_type_hints(types.SimpleNamespace(__annotations__=raw), space, include_extras=True)
    options: dict[str, Any] = {}
    takes_any = False
    for parameter in inspect.signature(inspect.unwrap(function)).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            hint = hints.pop(parameter.name, Any)
            takes_any = get_origin(hint) is not typing.Unpack
            options = {} if takes_any else typing.get_type_hints(get_args(hint)[0], include_extras=True)
    return hints, options, takes_any


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value has an annotated type; True for types that are not supported.

    >>> fits(3, int | None), fits(True, int), fits("ab", Sequence[str]), fits(3, float)
    (True, False, False, True)
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is Annotated:
        bounds = [m for m in parts[1:] if isinstance(m, Bound)]
        return not bounds or (fits(value, parts[0]) and all(bound.holds(value) for bound in bounds))
    if hint is Any:
        return True
    if hint is None:
        return value is None
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
    if origin in (Union, types.UnionType):
        kept = [p for p in parts if not (p is Path and str in parts)]
        names = [n for p in kept for n in ([expected(p)] if get_origin(p) is not Literal else map(repr, get_args(p)))]
        names = list(dict.fromkeys("a name or path" if n == "a string" and Path in parts else n for n in names))
        return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
    if origin is Literal:
        *most, last = map(repr, parts)
        return f"{', '.join(most)} or {last}" if most else last
    if origin is Annotated:
        return f"{expected(parts[0])}{parts[1]}"
    if hint in _WORDS or hint is None:
        return _WORDS.get(hint, "None")
    if origin in (Sequence, Iterable, tuple):
        return "a list of " + (expected(parts[0]).removeprefix("a ").removeprefix("an ") + "s" if parts else "values")
    if origin in (Mapping, dict) or hint in (Mapping, dict):
        return "a dictionary"
    if (origin is not None and not isinstance(origin, type)) or (origin and origin.__name__ == "Callable"):
        return "a function"
    return article(getattr(origin or hint, "__name__", str(hint)))


def article(name: str) -> str:
    """Return a noun with its article.

    >>> article("int"), article("Encoder"), article("list"), article("NoneType")
    ('an int', 'an Encoder', 'a list', 'None')
    """
    if name == "NoneType":
        return "None"
    return f"{'an' if name[:1].lower() in tuple('aeio') else 'a'} {name}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and len(repr(value)) < 80


def _cure(value: Any, hint: Any) -> str:
    kinds = {kind.__name__ for kind in type(value).__mro__}
    wanted = {getattr(part, "__name__", "") for part in (get_args(hint) or (hint,))}
    found = [cure for (given, want), cure in CURES.items() if given in kinds and want in wanted]
    return f" {found[0]}." if found else ""


def _unknown(function: str, keyword: str, value: Any, hints: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    known = [n for n in (*hints, *options) if n != "self"]
    near = nearest(keyword, known, cutoff=0.7)
    shown = f"{keyword}={value!r}" if _is_plain(value) else keyword
    told = f"Did you mean {near[0]}?" if near else f"It takes {', '.join(known)}."
    cure = f"Write {shown.replace(keyword, near[0], 1)}" if near else "Leave it out"
    return f"{function}() has no argument {shown}. {told} {cure}."
