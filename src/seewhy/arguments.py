"""Check arguments of public functions against their annotations; ``Annotated`` arguments are checked elsewhere."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

from .bounds import article, expected, fits
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


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to check its arguments by its annotations, and to run :func:`undisturbed`.

    >>> @checked
    ... def draw(side: int, *, colour: str | None = None) -> None: ...
    >>> draw("7")
    Traceback (most recent call last):
    ...
    seewhy.errors.InputError: `side` of draw() must be a whole number, got '7' (a str).
    """
    signature, work = _spelt_out(function), undisturbed(function)

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        __tracebackhide__ = True  # a notebook leaves it out of a traceback
        _refuse(function, signature, args, keywords)
        return work(*args, **keywords)

    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _spelt_out(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with its ``Unpack``ed options one by one, for ``help`` and completion."""
    signature = inspect.signature(function)
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
    hints, parameters = _hints(function), signature.parameters
    name = function.__qualname__.rpartition(".__init__")[0] or function.__name__
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for keyword in () if takes_any else keywords:
        if keyword not in parameters:
            raise InputError(_unknown(name, keyword, keywords[keyword], hints))
    try:
        bound = signature.bind(*args, **keywords)
    except TypeError as error:
        said = f"{error}".replace("'", "")
        known = ", ".join(n for n in hints if n in parameters and parameters[n].default is not ...)
        raise InputError(f"{name}() cannot be called like this: {said}. It takes {known}.") from None
    for parameter, value in bound.arguments.items():
        if parameter in hints and parameters[parameter].kind is not inspect.Parameter.VAR_KEYWORD:
            _check(name, parameter, value, hints[parameter])


def _check(function: str, name: str, value: Any, hint: Any) -> None:
    if not fits(value, hint):
        kind, cure = article(type(value).__name__), _cure(value, hint)
        shown = f"{value!r} ({kind})" if _is_plain(value) else kind
        raise InputError(f"`{name}` of {function}() must be {expected(hint)}, got {shown}.{cure}")


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the parameters, and of the options that ``Unpack`` adds."""
    raw = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    space = getattr(inspect.unwrap(function), "__globals__", {})
    hints = typing.get_type_hints(types.SimpleNamespace(__annotations__=raw), space, include_extras=True)
    for name in [name for name, hint in hints.items() if get_origin(hint) is typing.Unpack]:
        hints |= typing.get_type_hints(get_args(hints.pop(name))[0], include_extras=True)
    return hints


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and len(repr(value)) < 80


def _cure(value: Any, hint: Any) -> str:
    kinds = {kind.__name__ for kind in type(value).__mro__}
    wanted = {getattr(part, "__name__", "") for part in (get_args(hint) or (hint,))}
    found = [cure for (given, want), cure in CURES.items() if given in kinds and want in wanted]
    return f" {found[0]}." if found else ""


def _unknown(function: str, keyword: str, value: Any, hints: Mapping[str, Any]) -> str:
    known = [n for n in hints if n != "self"]
    near = nearest(keyword, known, cutoff=0.7)
    shown = f"{keyword}={value!r}" if _is_plain(value) else keyword
    told = f"Did you mean {near[0]}?" if near else f"It takes {', '.join(known)}."
    cure = f"Write {shown.replace(keyword, near[0], 1)}" if near else "Leave it out"
    return f"{function}() has no argument {shown}. {told} {cure}."
