"""A cache of features in SQLite, by the content of pictures and texts.

Vectors are float32, and maps float16 with a relative error below 1e-3. If the store fails, for example because the disk
is full, the run continues without it.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked
from ..errors import DataError, ForeignFileError
from ..types import Crop
from .cache import cache_dir
from .database import DatabaseKind, connect
from .reading import reason

_log = logging.getLogger("seewhy")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS looks_2 (
    key BLOB PRIMARY KEY, pooled BLOB NOT NULL, pooled_digest BLOB NOT NULL,
    features BLOB, shape BLOB, features_digest BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts_2 (
    key BLOB PRIMARY KEY, vector BLOB NOT NULL, vector_digest BLOB NOT NULL
) WITHOUT ROWID;
"""
_CURE = "free some disk space, or delete the file, or name another place with --store or SEEWHY_CACHE."
STORE = DatabaseKind("a feature store", 0x53576673, _SCHEMA)


def look_key(digest: str, encoder: str, view: Crop | None) -> bytes:
    return hashlib.sha256(f"2|{digest}|{encoder}|{view!r}".encode()).digest()


def text_key(text: str, tower: str) -> bytes:
    return hashlib.sha256(f"{tower}|{text}".encode("utf-8", "surrogatepass")).digest()


class FeatureStore:
    """A cache of picture features and sentence embeddings on disk.

    Args:
        path: database file; default: ``features.sqlite`` in the cache folder.

    Raises:
        ForeignFileError: the file was not written by SeeWhy.
        DataError: the file cannot be opened or is damaged, or the disk is full.
    """

    @checked
    def __init__(self, path: str | Path | None = None) -> None:
        self._named = bool(path)
        self.path = Path(path) if path else cache_dir() / "features.sqlite"
        self._reads = self._writes = True
        self.n_used = 0
        """Number of rows that were read or written."""
        self._damaged: dict[str, set[bytes]] = {"looks_2": set(), "texts_2": set()}
        try:
            self._db = connect(self.path, STORE, timeout=60)
            self._db.text_factory = bytes  # a damaged row may have a text that is not UTF-8
            self._db.execute("PRAGMA synchronous=NORMAL")
        except ForeignFileError as error:
            if self._named or self.path.stat().st_nlink > 1:
                raise
            raise self._problem("it is damaged, or not a feature store") from error
        except (sqlite3.Error, OSError) as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception | str) -> DataError:
        why = error if isinstance(error, str) else reason(error)
        return DataError(
            f"The feature store {self.path} cannot be used: {why}. It has only data that can be "
            f"computed again. To continue, {_CURE}"
        )

    def get(self, keys: Sequence[bytes], *, features: bool = False) -> dict[bytes, tuple[Tensor, Tensor | None]]:
        """Return the stored rows of these keys; with ``features``, only rows that have a feature map."""
        wanted = "features, shape, features_digest" if features else "NULL, NULL, NULL"
        rows = self._select(f"SELECT key, pooled, pooled_digest, {wanted} FROM looks_2 WHERE key IN", keys)
        whole: dict[bytes, tuple[Tensor, Tensor | None]] = {}
        rows = [row for row in rows if not features or row[3] is not None]
        for key, pooled, digest, blob, shape, map_digest in rows:
            vector = _values(digest, np.float32, key, pooled)
            grid = None if blob is None else _values(map_digest, np.float16, key, blob, shape)
            if vector is not None and (grid is not None or not features):
                whole[key] = (vector, grid)
        self._forget("looks_2", [row[0] for row in rows if row[0] not in whole])
        return whole

    def put(self, rows: Iterable[tuple[bytes, Tensor, Tensor | None]]) -> None:
        """Store all rows in one transaction; a missing map is added to an existing row if it fits into float16."""
        fitting = ((k, p, f if f is None or f.half().isfinite().all() else None) for k, p, f in rows)
        self._write(
            "INSERT INTO looks_2 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET features = excluded.features,"
            " shape = excluded.shape, features_digest = excluded.features_digest WHERE looks_2.features IS NULL",
            [(k, *_vector(k, p), *_map(k, f)) for k, p, f in fitting],
        )

    def get_texts(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        rows = self._select("SELECT key, vector, vector_digest FROM texts_2 WHERE key IN", keys)
        read = {key: _values(digest, np.float32, key, vector) for key, vector, digest in rows}
        self._forget("texts_2", [key for key, vector in read.items() if vector is None])
        return {key: vector for key, vector in read.items() if vector is not None}

    def put_texts(self, rows: Iterable[tuple[bytes, Tensor]]) -> None:
        self._write("INSERT OR IGNORE INTO texts_2 VALUES (?, ?, ?)", [(k, *_vector(k, v)) for k, v in rows])

    def texts(self, keys: Sequence[bytes], texts: Sequence[str], encode: Callable[[list[str]], Tensor]) -> Tensor:
        """Return the vectors of the texts with these keys; those that are not stored are encoded, and stored."""
        known = self.get_texts(keys)
        if missing := {k: t for k, t in zip(keys, texts, strict=True) if k not in known}:
            fresh = dict(zip(missing, encode(list(missing.values())), strict=True))
            self.put_texts(fresh.items())
            self.report()
            known |= fresh
        return torch.stack([known[k] for k in keys]) if keys else torch.empty(0, 0)

    def report(self) -> None:
        """Log the number of damaged rows since the last call, if there were any."""
        with self._db.lock:
            n = {table: len(keys) for table, keys in self._damaged.items()}
            for keys in self._damaged.values():
                keys.clear()
        for table, what in (("looks_2", "look"), ("texts_2", "sentence")):
            if n[table]:
                said = f"1 kept {what} was" if n[table] == 1 else f"{n[table]} kept {what}s were"
                _log.warning("%s damaged and computed again (in %s).", said, self.path)

    def _forget(self, table: str, keys: Sequence[bytes]) -> None:
        if keys:
            with self._db.lock:
                self._damaged[table].update(keys)
            self._write(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])

    def _select(self, query: str, keys: Sequence[bytes]) -> list[tuple]:
        rows: list[tuple] = []
        if not self._reads:
            return rows
        try:
            with self._db.lock:
                for start in range(0, len(keys), 500):
                    part = keys[start : start + 500]
                    rows += self._db.execute(f"{query} ({','.join('?' * len(part))})", part).fetchall()
                self.n_used += len(rows)
        except sqlite3.Error as error:
            self._give_up(error, reads=True)
            return []
        return rows

    def _write(self, query: str, values: list[tuple]) -> None:
        if not self._writes:
            return
        try:
            with self._db.lock, self._db:
                self._db.executemany(query, values)
            self.n_used += len(values)
        except sqlite3.Error as error:
            self._give_up(error, reads=False)

    def _give_up(self, error: Exception, *, reads: bool) -> None:
        if self._writes:
            _log.warning(
                "The feature store %s cannot be used any more: %s. The run continues without it. Before "
                "the next run, %s",
                self.path,
                error,
                _CURE,
            )
        self._writes = False
        self._reads = self._reads and not reads

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path]]:
        """Open the same file in the process that reads a pickle."""
        return FeatureStore, (self.path,)

    def __deepcopy__(self, _memo: object) -> FeatureStore:
        return self

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r})"

    def __len__(self) -> int:
        with self._db.lock:
            return int(self._db.execute("SELECT COUNT(*) FROM looks_2").fetchone()[0])

    def close(self) -> None:
        self._db.close()


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _vector(key: bytes, value: Tensor) -> tuple[bytes, bytes]:
    blob = value.detach().cpu().numpy().astype(np.float32).tobytes()
    return blob, _digest(key, blob)


def _map(key: bytes, value: Tensor | None) -> tuple[bytes | None, bytes | None, bytes | None]:
    if value is None:
        return None, None, None
    blob = value.detach().cpu().numpy().astype(np.float16).tobytes()
    shape = np.array(value.shape, np.int64).tobytes()
    return blob, shape, _digest(key, blob, shape)


def _values(digest: object, kind: type, key: bytes, blob: object, shape: object = None) -> Tensor | None:
    """Return the values of a row as float32; ``None`` if they are damaged or not finite."""
    parts = [key, blob] if shape is None else [key, blob, shape]
    if not all(isinstance(part, bytes) for part in parts) or digest != _digest(*parts):  # type: ignore[arg-type]
        return None
    values = np.frombuffer(blob, kind).astype(np.float32)  # type: ignore[call-overload]
    if shape is not None:
        values = values.reshape(np.frombuffer(shape, np.int64))  # type: ignore[call-overload]
    return torch.from_numpy(values) if np.isfinite(values).all() else None
