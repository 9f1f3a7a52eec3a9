"""A cache of thumbnails for grids of pictures."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...pictures.miniatures import encode_thumbnail
from ...storage.cache import cache_dir
from ...storage.database import Connection, DatabaseKind, connect

SIDE = 128
"""Longer side of a tile in pixels."""
QUALITY = 72
MOST_A_QUERY = 500
TILES = DatabaseKind(
    "kept tiles", 0x53577469,
    "CREATE TABLE IF NOT EXISTS tiles (key BLOB PRIMARY KEY, jpeg BLOB NOT NULL) WITHOUT ROWID;",
)  # fmt: skip

_log = logging.getLogger("seewhy")


def file_key(name: str) -> bytes:
    """Return a key from the path, size and modification times of a file, without reading the file.

    A copy can set ``mtime``, as ``cp -p`` does, but not ``ctime``.
    """
    try:
        facts = os.stat(name)
    except OSError:
        return b""
    description = f"{os.path.abspath(name)}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ctime_ns}|{SIDE}"
    return hashlib.sha256(description.encode("utf-8", "surrogatepass")).digest()[:16]


def square(pixels: np.ndarray, side: int = SIDE, quality: int = QUALITY) -> bytes:
    """Encode the picture as JPEG with a longer side of at most ``side``."""
    view = Image.fromarray(pixels)
    view.thumbnail((side, side))
    return encode_thumbnail(np.asarray(view), quality)


class Tiles:
    """A cache of tiles on disk, or in memory if the disk fails."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_dir() / "tiles.sqlite"
        self._memory: dict[bytes, bytes] = {}
        self._db: Connection | None = None
        try:
            self._db = connect(self.path, TILES, timeout=30)
            self._db.execute("PRAGMA synchronous=NORMAL")
        except (sqlite3.Error, OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        _log.warning("Tiles cannot be cached in %s: %s. They will be computed again next time.", self.path, error)
        self._db = None

    def known(self, keys: Iterable[bytes]) -> set[bytes]:
        """Return the keys that have a tile."""
        return set(self._select("key, NULL", [*keys]))

    def get(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return a JPEG for each key, or empty bytes."""
        jpegs = self._select("key, jpeg", keys)
        return [jpegs.get(key, b"") for key in keys]

    def put(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Store tiles."""
        db = self._db  # another thread may give up in between
        try:
            if db is not None:
                with db.lock, db:
                    db.executemany("INSERT OR REPLACE INTO tiles VALUES (?, ?)", rows)
                return
        except sqlite3.Error as error:
            self._give_up(error)
        self._memory.update(rows)

    def _select(self, columns: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        rows = {k: self._memory[k] for k in keys if k in self._memory}
        db = self._db  # another thread may give up in between
        try:
            for start in range(0, len(keys) if db is not None else 0, MOST_A_QUERY):
                part = keys[start : start + MOST_A_QUERY]
                places = ",".join("?" * len(part))
                with db.lock:  # type: ignore[union-attr]
                    rows |= db.execute(f"SELECT {columns} FROM tiles WHERE key IN ({places})", part)  # type: ignore[union-attr]
        except sqlite3.Error as error:
            self._give_up(error)
        return rows


def packed(tiles: Sequence[bytes]) -> bytes:
    """Join files to one answer: their sizes as 32-bit integers, then their bytes."""
    return struct.pack(f"<{len(tiles)}I", *map(len, tiles)) + b"".join(tiles)
