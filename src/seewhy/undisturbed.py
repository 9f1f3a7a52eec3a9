"""Run SeeWhy's code independently of the caller's torch settings and random states, and leave them unchanged."""

from __future__ import annotations

import functools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from types import GeneratorType
from typing import Any, ParamSpec, TypeVar

from .threads import each_within

P = ParamSpec("P")
R = TypeVar("R")

_thread = threading.local()
"""Whether each thread is inside :func:`as_usual`."""


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function, so that the caller's torch settings have no effect on it or on a generator that it returns.

    >>> import torch
    >>> with torch.no_grad():
    ...     undisturbed(torch.is_grad_enabled)()
    True
    """

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        __tracebackhide__ = True
        torch = sys.modules.get("torch")
        inferring = torch is not None and torch.is_inference_mode_enabled()
        with as_usual():
            if inferring:
                args, keywords = map(_of_no_mode, args), _of_no_mode(keywords)  # type: ignore[assignment]
            result = function(*args, **keywords)
        return each_within(as_usual, result) if isinstance(result, GeneratorType) else result  # type: ignore[return-value]

    return call


def _of_no_mode(given: Any) -> Any:
    """Copy inference tensors, so that gradients can be computed through them."""
    torch = sys.modules["torch"]
    if isinstance(given, torch.Tensor):
        return given.clone() if given.is_inference() else given
    if isinstance(given, dict):
        return {key: _of_no_mode(one) for key, one in given.items()}
    if is_dataclass(given) and not isinstance(given, type):
        parts = {f.name: getattr(given, f.name) for f in fields(given)}
        if all(one is None or isinstance(one, torch.Tensor) for one in parts.values()):
            return replace(given, **_of_no_mode(parts))
    return given


@contextmanager
def as_usual() -> Iterator[None]:
    """Apply torch's default settings inside this context, and restore random states afterwards."""
    if getattr(_thread, "inside", False):
        yield
        return
    _thread.inside = True
    try:
        with _same_draws(), _plain_torch():
            yield
    finally:
        _thread.inside = False


@contextmanager
def _plain_torch() -> Iterator[None]:
    """Apply float32, CPU, gradients, and neither autocast nor inference mode."""
    torch = sys.modules.get("torch")
    if torch is None:  # torch is not imported
        yield
        return
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(True))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_dtype() != torch.float32:
            from .float32 import Float32

            stack.enter_context(Float32())
        yield


@contextmanager
def _same_draws() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch, for methods of users that draw from them.

    Only if no other thread can draw at the same time: it would get the same numbers twice.
    """
    if not _is_alone():
        yield
        return
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    cards = torch is not None and torch.cuda.is_initialized()
    before = random.getstate(), numpy and numpy.get_state(), torch and torch.get_rng_state()
    on_cards = torch.cuda.get_rng_state_all() if torch is not None and cards else []
    try:
        yield
    finally:
        if _is_alone():
            random.setstate(before[0])
            if numpy is not None:
                numpy.set_state(before[1])
            if torch is not None:
                torch.set_rng_state(before[2])
            if torch is not None and cards:
                torch.cuda.set_rng_state_all(on_cards)


def _is_alone() -> bool:
    """Whether SeeWhy's are the only other threads of Python; they draw from generators of their own."""
    own = threading.current_thread()
    return all(other is own or other.name.startswith("seewhy-") for other in threading.enumerate())
