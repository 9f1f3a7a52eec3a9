"""A line of JSON per request, written by a thread of its own: a full or slow disk holds nobody up."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

MOST_WAITING = 10_000


class AccessLog:
    """Writes lines to a file descriptor; those that cannot be written are counted and left out.

    Args:
        to: the descriptor; ``None`` writes nothing.
        dropped: called for each line left out.
    """

    def __init__(self, to: int | None, dropped: Callable[[], None]) -> None:
        self.to = to
        self.dropped = dropped
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._torn = False
        self._thread = threading.Thread(target=self._run, name="seewhy-log", daemon=True)
        if to is not None:
            self._thread.start()

    def write(self, line: dict[str, Any]) -> None:
        """Take a line; never waits."""
        if self.to is None:
            return
        try:
            self._lines.put_nowait(json.dumps(line).encode("ascii") + b"\n")
        except queue.Full:
            self.dropped()

    def close(self) -> None:
        """Write what waits, within two seconds."""
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=1)
            except queue.Full:
                return
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(b"\n" + line if self._torn else line)
                self._torn = False
            except OSError:
                self.dropped()

    def _write(self, data: bytes) -> None:
        assert isinstance(self.to, int)
        while data:
            n = os.write(self.to, data)
            self._torn, data = n < len(data), data[n:]
