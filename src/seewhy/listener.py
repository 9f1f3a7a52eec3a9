"""How long work tells what it is doing: the command line draws it, a script may ignore it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from .types import Failure

T = TypeVar("T")


class Listener:
    """Hears of progress, notes and failed pictures; this one keeps the last two and draws nothing."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.notes: list[str] = []

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Pass items on, one by one, as they are done."""
        yield from items
