"""How many threads SeeWhy may keep busy in this process: engine, decoders and torch share one bound."""

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
"""Vectors with which one thread computes about as fast as several: solvers and covariances of so many pictures."""
_bound: list[int] = []
_forks: list[int] = [0]


def n_forks() -> int:
    """The number of forks between this process and the one that imported SeeWhy; that one's threads do not
    exist here.
    """
    return _forks[0]


def _after_fork() -> None:
    """OpenMP waits for ever for threads that a fork left behind, so torch keeps to one, as in its loaders' workers."""
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
    """Limit the cores that this process uses; called before an encoder is loaded, because its engine is built
    for them.
    """
    if n < 1:
        raise InputError(f"The number of threads is {n}. Expected a whole number of at least 1. Change it.")
    _bound[:] = [n]
    bound_torch()


def bound_torch() -> None:
    """Apply the limit to torch, if torch is loaded by now; called again when an engine is built."""
    torch = sys.modules.get("torch")
    if _bound and torch is not None:
        torch.set_num_threads(_bound[0])


_before = threading.local()
"""Of each thread, how many torch threads its caller had while only one is used."""


@contextmanager
def beside(engine: str, n_rows: int = 0) -> Iterator[None]:
    """Use one torch thread inside this context, where another engine runs the network; afterwards the caller's number
    again.

    Torch's threads wait by spinning, which takes cores from the engine. With more than :data:`FEW` vectors
    (``n_rows``), torch is faster with all of its threads.
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
    """Inside :func:`beside`, give torch all of the caller's threads again while torch itself runs a network."""
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
    """A stream whose results are computed :func:`beside` an engine; the code that takes them keeps its torch
    threads.
    """
    return each_within(lambda: beside(engine), stream)


def each_within(context: Callable[[], AbstractContextManager[None]], stream: Generator[T, None, None]) -> Iterator[T]:
    """A stream whose results are computed within a context that does not apply to the code that takes them."""
    with closing(stream):
        while True:
            with context():
                try:
                    result = next(stream)
                except StopIteration:
                    return
            yield result
