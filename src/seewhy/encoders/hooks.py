"""Hooks on a network that are gone when they are no longer needed, whatever happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Within it these hooks act."""
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield
