"""Limits on the cost of decoding: scans, reads, seconds, and memory."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile

from ..errors import InputError


class Room:
    """A memory limit for decoding: pictures are decoded in parallel while they fit."""

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


MAX_SCANS = 64
"""Maximum number of scans of a JPEG; programs write 1 to 13."""

_MOST_READ = 16
"""Maximum bytes that a decoder may read, as a multiple of the file's size; decoders read a file once or twice."""
_FREE_BYTES = 64_000_000
_MOST_READS = 500_000
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


class TooCostlyError(Exception):
    """Raised when a file needs more time or memory than is allowed."""


def limit_of(name: str, what: str, default: int) -> int:
    """Return an integer limit from an environment variable."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{name} must be a whole number of {what}, at least 1, got {text!r}. Correct or unset it.")
    return int(text)


class BoundedFile(io.BytesIO):
    """A file in memory that stops its decoder after too much time or too many bytes."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._seconds = seconds
        self._until = time.thread_time() + seconds
        self._left = _MOST_READ * len(data) + _FREE_BYTES
        self._reads = 0

    def _checked(self, data: bytes) -> bytes:
        self._left -= len(data)
        self._reads += 1
        if self._left < 0 or self._reads > _MOST_READS:
            raise TooCostlyError("makes the decoder read it again and again; save it again as PNG")
        if time.thread_time() > self._until:
            raise TooCostlyError(
                f"takes more than {self._seconds:g} seconds to decode; shrink it, save it again, or set "
                "SEEWHY_MAX_SECONDS to a larger number"
            )
        return data

    def read(self, size: int | None = -1) -> bytes:
        return self._checked(super().read(size))

    def readline(self, size: int | None = -1) -> bytes:
        return self._checked(super().readline(size))


def count_scans(data: bytes, most: int = MAX_SCANS) -> int:
    """Return the number of scans in the first picture of a JPEG, or ``most + 1`` if there are more than ``most``.

    >>> count_scans(b"\\xff\\xd8\\xff\\xda\\0\\2ab\\xff\\0c\\xff\\xda\\0\\2d\\xff\\xd9")
    2
    """
    at, scans = 2, 0
    while scans <= most and (marker := _MARKER.match(data, at)):
        kind = marker[1][0]
        if kind == 0xD9:
            break
        at = marker.end()
        if not (kind in (0x00, 0x01) or 0xD0 <= kind <= 0xD8):
            at += int.from_bytes(data[at : at + 2], "big")
        if kind == 0xDA:
            scans += 1
            following = _NEXT.search(data, at)
            at = following.start() if following else len(data)
    return scans


def check_scans(data: bytes) -> None:
    """Check that a JPEG has at most ``MAX_SCANS`` scans."""
    if data[:2] == b"\xff\xd8" and count_scans(data) > MAX_SCANS:
        raise TooCostlyError(f"has more than {MAX_SCANS} scans; save it again")


class _WatchedDecoder:
    """Pillow's decoder of one tile, which leaves ``unfinished`` only when it has decoded all pixels of the tile."""

    def __init__(self, mode: str, codec: str, args: Any, unfinished: list[Any], *config: Any) -> None:
        self._decoder = Image._getdecoder(mode, codec, args, config)
        self._unfinished = unfinished
        unfinished.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, buffer: bytes) -> tuple[int, int]:
        n, error = self._decoder.decode(buffer)
        if error >= 0 and (n < 0 or self._decoder.pulls_fd):
            self._unfinished.remove(self)
        return n, error


_CODEC = "seewhy_watched"
Image.register_decoder(_CODEC, _WatchedDecoder)  # type: ignore[arg-type]


def load_whole(image: Image.Image) -> None:
    """Decode a picture, and raise an error if it is cut off, also where Pillow is set to load truncated pictures."""
    unfinished: list[Any] = []
    if isinstance(image, ImageFile.ImageFile):
        tile = getattr(ImageFile, "_Tile", lambda *parts: parts)
        image.tile = [
            t if t[0] in ("libtiff", _CODEC) else tile(_CODEC, t[1], t[2], (t[0], t[3], unfinished)) for t in image.tile
        ]
    if heif := getattr(image, "_heif_file", None):
        _ = heif[image.tell()].data
    image.load()
    if unfinished or getattr(image, "_ended", False):  # Pillow's note of a JPEG whose end it made up
        raise OSError("image file is truncated")
