"""How many pictures are in memory at once, however many threads read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Pictures are decoded at once as long as they fit together; one larger than the room is decoded alone.

    Decoding takes up to 13 bytes a pixel, and as many threads decode as there are cores.

    Args:
        pixels: of all pictures together.
        free: pictures up to this many pixels need no room.
    """

    def __init__(self, pixels: int, free: int) -> None:
        self.pixels, self.free, self.left = pixels, free, pixels
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        if pixels <= self.free:
            yield
            return
        share = min(pixels, self.pixels)
        with self.changed:
            self.changed.wait_for(lambda: self.left >= share)
            self.left -= share
        try:
            yield
        finally:
            with self.changed:
                self.left += share
                self.changed.notify_all()
