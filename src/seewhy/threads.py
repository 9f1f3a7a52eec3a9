"""How many threads SeeWhy may keep busy in this process: engine, decoders and torch share one bound."""

from __future__ import annotations

import os
import sys

from .errors import InputError

_bound: list[int] = []


def n_cores() -> int:
    """Cores that this process may run on.

    Example:
        >>> n_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads() -> int:
    """Threads that may be busy at once: the bound, or one per core."""
    return _bound[0] if _bound else n_cores()


def bound_threads(n: int) -> None:
    """Bound what this process keeps busy; asked before an encoder is loaded, as engines are built for it.

    Raises:
        InputError: it is not a whole number above 0.
    """
    if n < 1:
        raise InputError(f"{n} threads were asked for. A whole number above 0 was expected. Give at least 1.")
    _bound[:] = [n]
    bound_torch()


def bound_torch() -> None:
    """Have torch keep to the bound, if it is loaded by now; asked again when an engine is built."""
    torch = sys.modules.get("torch")
    if _bound and torch is not None:
        torch.set_num_threads(_bound[0])
