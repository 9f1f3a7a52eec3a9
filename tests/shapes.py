"""Checks the tensor shapes that signatures promise, and nothing else of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import beartype

WORD = re.compile(r"\w+")


def shapes_checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A type checker for jaxtyping's import hook; mypy looks after what is not a tensor."""
    if isinstance(function, type):
        return function
    kept = {name: hint for name, hint in function.__annotations__.items() if "[Tensor, " in str(hint)}
    if not kept:
        return function
    function.__annotations__ = kept
    checked: Callable[..., Any] = beartype(function)
    return checked


def has_shapes(function: Callable[..., Any]) -> bool:
    """Whether a signature names the shape of a tensor, itself or by a name of its module."""
    hints, known = [*map(str, function.__annotations__.values())], getattr(function, "__globals__", {})
    names = {word for hint in hints for word in WORD.findall(hint)} & known.keys()
    return any("[Tensor, " in hint for hint in [*hints, *(str(known[name]) for name in names)])


def leave_out_those_without_shapes() -> None:
    """The hook wraps every function, and binds its arguments at each call: only those with shapes are to be wrapped."""
    wrap = jaxtyping.jaxtyped

    def wrapped(*, typechecker: Any) -> Callable[[Any], Any]:
        decorate = wrap(typechecker=typechecker)

        def chosen(given: Any) -> Any:
            function = given.__init__ if inspect.isclass(given) else given
            return given if inspect.isfunction(function) and not has_shapes(function) else decorate(given)

        return chosen

    jaxtyping.jaxtyped = wrapped
