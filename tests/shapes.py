"""Checks the tensor shapes that signatures promise, and nothing else of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype


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
