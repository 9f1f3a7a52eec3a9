"""The feature store: what was looked at once is found again by content.

SQLite in write-ahead mode: one file, crash-safe, several readers and writers at once.
A row is keyed by the SHA-256 of the picture's bytes, the encoder's fingerprint and the view;
pooled vectors are float32, feature maps float16 (relative error below 1e-3; one with larger numbers is not kept).
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .cache import cache_dir
from .errors import DataError
from .types import Crop

_MAGIC = b"SQLite format 3\0"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS looks (
    key BLOB PRIMARY KEY, pooled BLOB NOT NULL, features BLOB, shape TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
"""


def look_key(digest: str, encoder: str, view: Crop | None) -> bytes:
    """The name of one view of one picture under one encoder."""
    return hashlib.sha256(f"{digest}|{encoder}|{view!r}".encode()).digest()


def text_key(text: str, tower: str) -> bytes:
    """The name of one sentence under one text tower."""
    return hashlib.sha256(f"{tower}|{text}".encode("utf-8", "surrogatepass")).digest()


class FeatureStore:
    """Looks and sentence vectors on disk.

    Args:
        path: the database file; left out, ``features.sqlite`` in the cache folder.

    Raises:
        DataError: the file cannot be opened, is damaged, or the disk is full.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._named = bool(path)
        self.path = Path(path) if path else cache_dir() / "features.sqlite"
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception) -> DataError:
        if self._is_something_else():
            return DataError(
                f"{self.path} is not a feature store: {error}. A file that SeeWhy made, or a new name, was expected. "
                "Give another name; the file was left as it is."
            )
        return DataError(
            f"The feature store {self.path} cannot be used: {error}. It only holds what can be computed again: "
            "free some disk space, or delete the file, or name another place with --store or SEEWHY_CACHE."
        )

    def _is_something_else(self) -> bool:
        """Whether the user named a file that never was a database; the one in the cache can only be a damaged one."""
        try:
            with open(self.path, "rb") as file:
                return self._named and file.read(len(_MAGIC)) != _MAGIC
        except OSError:
            return False

    def get(self, keys: Sequence[bytes], *, features: bool = False) -> dict[bytes, tuple[Tensor, Tensor | None]]:
        """What is known of these keys; with ``features``, only rows that have a feature map."""
        found: dict[bytes, tuple[Tensor, Tensor | None]] = {}
        columns = "key, pooled, features, shape" if features else "key, pooled, NULL, NULL"
        for row in self._select(f"SELECT {columns} FROM looks WHERE key IN", keys):
            key, pooled, blob, shape = row
            if features and blob is None:
                continue
            grid = None
            if blob is not None:
                sizes = [int(s) for s in shape.split(",")]
                values = np.frombuffer(blob, np.float16).reshape(sizes).astype(np.float32)
                if not np.isfinite(values).all():  # kept by an earlier version
                    continue
                grid = torch.from_numpy(values)
            found[key] = (torch.from_numpy(np.frombuffer(pooled, np.float32).copy()), grid)
        return found

    def put(self, rows: Iterable[tuple[bytes, Tensor, Tensor | None]]) -> None:
        """Keep looks; one transaction, all or nothing. A row with a feature map is never replaced by one without.

        A map that 16 bits cannot hold is left out, so that it is looked at again rather than found as another.
        """
        fitting = ((k, p, f if f is None or f.half().isfinite().all() else None) for k, p, f in rows)
        values = [(k, _blob(p, np.float32), _blob(f, np.float16), _shape(f)) for k, p, f in fitting]
        self._write(
            "INSERT INTO looks VALUES (?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET features = excluded.features, "
            "shape = excluded.shape WHERE excluded.features IS NOT NULL",
            values,
        )

    def get_texts(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        rows = self._select("SELECT key, vector FROM texts WHERE key IN", keys)
        return {k: torch.from_numpy(np.frombuffer(v, np.float32).copy()) for k, v in rows}

    def put_texts(self, rows: Iterable[tuple[bytes, Tensor]]) -> None:
        self._write("INSERT OR IGNORE INTO texts VALUES (?, ?)", [(k, _blob(v, np.float32)) for k, v in rows])

    def _select(self, query: str, keys: Sequence[bytes]) -> list[tuple]:
        rows: list[tuple] = []
        try:
            with self._lock:
                for start in range(0, len(keys), 500):
                    part = keys[start : start + 500]
                    rows += self._db.execute(f"{query} ({','.join('?' * len(part))})", part).fetchall()
        except sqlite3.Error as error:
            raise self._problem(error) from error
        return rows

    def _write(self, query: str, values: list[tuple]) -> None:
        try:
            with self._lock, self._db:
                self._db.executemany(query, values)
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM looks").fetchone()[0])

    def close(self) -> None:
        self._db.close()


def _blob(value: Tensor | None, kind: type) -> bytes | None:
    return None if value is None else value.detach().cpu().numpy().astype(kind).tobytes()


def _shape(value: Tensor | None) -> str | None:
    return None if value is None else ",".join(str(s) for s in value.shape)
