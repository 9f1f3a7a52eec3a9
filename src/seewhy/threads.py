"""A shared limit on the threads of the engine, the decoders and torch; changes that threads share."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from importlib import import_module
from itertools import islice
from typing import TypeVar

from .errors import InputError

S = TypeVar("S")
T = TypeVar("T")

FEW = 1000
"""Number of vectors up to which one thread is about as fast as several."""
_bound: list[int] = []
_forks: list[int] = [0]
_importing = threading.RLock()


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


def import_libraries(*names: str) -> None:
    """Import those of the libraries that are installed, in one thread at a time.

    Of two threads that import modules which need each other, Python hands one a module that is half made.
    """
    with _importing:
        for name in names:
            with suppress(ImportError):
                import_module(name)


def map_ahead(function: Callable[[S], T], items: Iterable[S], n: int) -> Iterator[T]:
    """Yield the results of a function in order, computed by threads up to ``n`` items ahead."""
    source = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        waiting = deque(pool.submit(function, item) for item in islice(source, n))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result


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


class Together:
    """A change of the whole process, which the first thread to enter makes and the last one to leave undoes.

    Args:
        change: makes the change, and returns the function that undoes it. It must not import: another thread may import
            while it waits for this one.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._change, self._lock, self._own, self._n = change, threading.Lock(), threading.local(), 0
        self._undo: Callable[[], None]
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._alone
            )

    def _alone(self) -> None:
        """After a fork, only the thread that forked is left."""
        depth = getattr(self._own, "depth", 0)
        if self._n and not depth:
            self._undo()
        self._n = min(self._n, 1) if depth else 0
        self._lock.release()

    def __enter__(self) -> None:
        depth = self._own.depth = getattr(self._own, "depth", 0) + 1
        if depth == 1:
            with self._lock:
                self._undo = self._undo if self._n else self._change()
                self._n += 1

    def __exit__(self, *error: object) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            with self._lock:
                self._n -= 1
                if not self._n:
                    self._undo()


_before = threading.local()
"""Number of torch threads outside :func:`beside`, for each thread."""


def _set_here(n: int, elsewhere: int) -> None:
    """Set torch's number of threads for this thread only.

    ``torch.set_num_threads`` also sets what a thread gets that calls torch for the first time, and keeps.
    """
    import torch

    torch.set_num_threads(n)
    if n != elsewhere:
        other = threading.Thread(target=torch.set_num_threads, args=(elsewhere,), name="seewhy-threads")
        other.start()
        other.join()


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
    _set_here(1, n)
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
        _set_here(1, n)


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
