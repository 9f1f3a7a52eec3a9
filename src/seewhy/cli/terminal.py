"""Messages and progress on standard error, the exit code, and an orderly end after a signal."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import TextIO, TypeVar

from ..printable import printable
from ..progress import LINE, Bars
from ..storage.output import note_input
from ..types import Failure

T = TypeVar("T")


def say(*lines: str, file: TextIO | None = None, flush: bool = True) -> None:
    """Print each text on one line, with control characters except tabs escaped."""
    with LINE.above():
        for line in lines:
            print(printable(line, keep="\t"), file=file or sys.stdout, flush=flush)


class Notes(logging.Handler):
    """A log handler that prints SeeWhy's warnings as notes on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk under standard error stops nothing
            say(f"note: {record.getMessage()}", file=sys.stderr)


class Terminal(Bars):
    """A progress reporter that writes to standard error."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        self.quiet = quiet
        log = logging.getLogger("seewhy")
        log.setLevel(logging.ERROR if quiet else logging.WARNING)

    def failed(self, failure: Failure) -> None:
        super().failed(failure)
        say(f"seewhy: {failure.image!r} left out: {failure.error}", file=sys.stderr)

    def note(self, text: str) -> None:
        super().note(text)
        self.tell(text)

    def tell(self, text: str) -> None:
        if not self.quiet:
            say(f"note: {text}", file=sys.stderr)

    def doing(self, what: str) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self.quiet else super().doing(what)

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        return iter(items) if self.quiet else super().track(items, what, total)


@contextlib.contextmanager
def tidy_after_signals() -> Iterator[None]:
    """Let ``SIGTERM`` and ``SIGHUP`` end the process as they always do, but after temporary files are deleted and
    databases are closed.

    A line says what is kept. A second signal ends the process at once. Signals that are ignored or handled elsewhere
    stay so.
    """
    received: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        received.append(number)
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    except SystemExit as error:
        if received:
            say_stopped(error)
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if received:
            atexit._run_exitfuncs()  # the signal itself would skip them
            signal.raise_signal(received[0])


def say_stopped(error: BaseException, otherwise: str = "stopped.") -> None:
    """Print the notes of an exception, which say how far the work came."""
    notes = getattr(error, "__notes__", [otherwise] if otherwise else [])
    with contextlib.suppress(OSError, ValueError):
        say(*(f"seewhy: {note}" for note in notes), file=sys.stderr)


_own: list[TextIO] = []


def take_standard_input() -> None:
    """Move standard input to :func:`standard_input`, so that no library reads from it."""
    try:
        number = sys.stdin.fileno()
        copy = os.dup(number)
    except (AttributeError, OSError, ValueError):  # standard input is missing or not a file
        return
    _own[:] = [os.fdopen(copy, encoding=sys.stdin.encoding, errors="surrogateescape")]
    note_input("/dev/stdin", os.fstat(copy))  # which may be a file
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, number)
    os.close(nothing)


def standard_input() -> TextIO:
    return _own[0] if _own else sys.stdin
