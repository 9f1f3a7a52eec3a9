"""A shared limit on the threads of the engine, the decoders and torch."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TypeVar

from .errors import InputError

T = TypeVar("T")

FEW = 1000
"""Number of vectors up to which one thread is about as fast as several."""
_bound: list[int] = []
_forks: list[int] = [0]


def n_forks() -> int:
    """Return the number of forks since SeeWhy was imported."""
    return _forks[0]


def _after_fork() -> None:
    """Limit torch to one thread after a fork, because OpenMP would wait forever for the parent's threads."""
    _forks[0] += 1
    _bound[:] = [1]
    bound_torch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads() -> int:
    return _bound[0] if _bound else n_cores()


def bound_threads(n: int) -> None:
    """Limit the number of threads of this process; call it before an encoder is loaded."""
    if n < 1:
        raise InputError(f"The number of threads must be at least 1, got {n}.")
    _bound[:] = [n]
    bound_torch()


def bound_torch() -> None:
    """Apply the limit to torch, if torch is imported."""
    torch = sys.modules.get("torch")
    if _bound and torch is not None:
        torch.set_num_threads(_bound[0])


_before = threading.local()
"""Number of torch threads outside :func:`beside`, for each thread."""


@contextmanager
def beside(engine: str, n_rows: int = 0) -> Iterator[None]:
    """Limit torch to one thread inside this context, if another engine runs the network.

    Idle torch threads spin, which slows the other engine. With more than :data:`FEW` vectors (``n_rows``), torch keeps
    all of its threads.
    """
    import torch

    n = torch.get_num_threads()
    if engine == "torch" or n == 1 or n_rows > FEW:
        yield
        return
    outer, _before.n = getattr(_before, "n", None), n
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _before.n = outer
        torch.set_num_threads(n)


@contextmanager
def for_torch() -> Iterator[None]:
    """Restore all torch threads inside :func:`beside`, while torch runs a network."""
    import torch

    n: int | None = getattr(_before, "n", None)
    if n is None:
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def each_beside(engine: str, stream: Generator[T, None, None]) -> Iterator[T]:
    """Yield from a generator that runs inside :func:`beside`; outside the generator, torch keeps all of its threads."""
    return each_within(lambda: beside(engine), stream)


def each_within(context: Callable[[], AbstractContextManager[None]], stream: Generator[T, None, None]) -> Iterator[T]:
    """Yield from a generator that runs inside a context; the context does not apply to the consumer."""
    with closing(stream):
        while True:
            with context():
                try:
                    result = next(stream)
                except StopIteration:
                    return
            yield result
