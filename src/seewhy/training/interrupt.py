"""Signals that end a process, kept until the step of a training is done and written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupt:
    """Within ``with``, the first signal only sets :attr:`signal`; a second one acts at once, as it would have.

    A signal that is ignored stays ignored. Python hears signals in its main thread alone: in another, nothing changes.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None and handler != signal.SIG_IGN:
                    self._handlers[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.__exit__(None, None, None)

    def act(self) -> str:
        """Let the signal do what it does, which most often is the end: Ctrl-C raises a ``KeyboardInterrupt``."""
        self.__exit__(None, None, None)
        number, self.signal = self.signal or signal.SIGTERM, None
        signal.raise_signal(number)
        return signal.Signals(number).name
