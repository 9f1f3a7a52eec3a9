"""What an index knows beside its vectors: names, digests, classes, thumbnails, settings. SQLite, write-ahead.

One transaction is one step: either all of it happened or nothing. Readers see the last finished step, while one
writer works; a second writer waits for its turn.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..storage.database import DatabaseKind, connect
from ..storage.reading import parse_json
from .facts import check
from .settings import Settings

FILE = "catalogue.sqlite"
FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL UNIQUE, label TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS thumbnails (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
"""
CATALOGUE = DatabaseKind("the catalogue of an index", 0x53576978, _SCHEMA, earlier=(_SCHEMA,))


@dataclass(frozen=True)
class Item:
    """One picture of the index.

    Attributes:
        id: never given twice.
        row: of its vectors.
        name: file name, absolute, or what the caller called it.
        digest: SHA-256 of its bytes.
        label: its class; empty where it has none.
    """

    id: int
    row: int
    name: str
    digest: str
    label: str


class Catalogue:
    """The database of an index.

    Args:
        folder: of the index.
        wait: seconds a writer waits for another one.

    Raises:
        DataError: it cannot be opened or is damaged.
    """

    def __init__(self, folder: Path, wait: float = 60.0) -> None:
        self.folder = folder
        self._wait = wait
        self._lock = threading.RLock()
        try:
            self._db = connect(folder / FILE, CATALOGUE, timeout=wait, isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
        except (sqlite3.Error, OSError) as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception) -> DataError:
        if "locked" in str(error):
            return DataError(
                f"The index {self.folder} is being written by another process, which did not finish within "
                f"{self._wait:g} s. Searching goes on meanwhile; add again when it is done."
            )
        return DataError(
            f"The index {self.folder} cannot be used: {error}. "
            f"Free some disk space, or make it again from the pictures with: seewhy index PHOTOS -o {self.folder}"
        )

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One step: all of it is kept, or nothing.

        Raises:
            DataError: another process writes and does not finish, or the disk is full.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    before = self._db.total_changes
                    yield self._db
                    if self._db.total_changes > before:  # else readers need not look again
                        self._set("version", self.get("version", 0) + 1)
                    self._db.execute("COMMIT")
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._problem(error) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything read inside is of one and the same step."""
        with self._lock:
            self._run("BEGIN")
            try:
                yield
            finally:
                self._run("COMMIT")

    def _run(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def get(self, key: str, default: Any = None) -> Any:
        """What the index says of itself, checked.

        Raises:
            DataError: it says what no index does.
        """
        found = self._run("SELECT value FROM meta WHERE key = ?", (key,))
        if not found:
            return default
        try:
            value = parse_json(found[0][0])
            check(key, value)
        except (ValueError, TypeError) as error:  # a column may hold bytes
            raise self._problem(error) from error
        return value

    def need(self, key: str) -> Any:
        """The same, of what every index says.

        Raises:
            DataError: it does not.
        """
        if (found := self.get(key)) is None:
            raise self._problem(ValueError(f"it does not say its {key}"))
        return found

    def settings(self) -> Settings:
        """How it was made."""
        return Settings(**self.need("settings"))

    def _set(self, key: str, value: Any) -> None:
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def set(self, **settings: Any) -> None:
        """Keep settings; inside :meth:`writing`."""
        for key, value in settings.items():
            self._set(key, value)

    def __len__(self) -> int:
        return int(self._run("SELECT COUNT(*) FROM items")[0][0])

    def known(self, column: str, values: Sequence[str]) -> dict[str, Item]:
        """Items by ``"name"`` or ``"digest"``."""
        position = {"name": 2, "digest": 3}[column]
        found: dict[str, Item] = {}
        for start in range(0, len(values), 500):
            part = values[start : start + 500]
            marks = ",".join("?" * len(part))
            for row in self._run(f"SELECT id, row, name, digest, label FROM items WHERE {column} IN ({marks})", part):
                found[row[position]] = self._item(row)
        return found

    def at_rows(self, rows: Sequence[int]) -> dict[int, Item]:
        """Items by row."""
        found: dict[int, Item] = {}
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT id, row, name, digest, label FROM items WHERE row IN ({marks})"
            found.update((row[1], self._item(row)) for row in self._run(query, part))
        return found

    def _item(self, row: tuple) -> Item:
        """SQLite keeps any kind of value in any column."""
        if [type(value) for value in row] != [int, int, str, str, str]:
            raise self._problem(ValueError(f"a picture is kept as {str(row)[:60]}"))
        return Item(*row)

    def _numbers(self, query: str, values: Sequence[Any] = ()) -> np.ndarray:
        """The rows that a query gives, if every one is a row."""
        found, n = [row for (row,) in self._run(query, values)], self.get("n_rows", 0)
        if not all(type(row) is int and 0 <= row < n for row in found):
            raise self._problem(ValueError(f"a picture is of no row from 0 to {n - 1}"))
        return np.array(found, np.int64)

    def items(self) -> Iterator[Item]:
        """Every item, in the order added."""
        yield from (self._item(row) for row in self._run("SELECT id, row, name, digest, label FROM items ORDER BY id"))

    def rows(self) -> np.ndarray:
        """The rows in use, rising, int64."""
        return self._numbers("SELECT row FROM items ORDER BY row")

    def rows_of(self, labels: Sequence[str]) -> np.ndarray:
        """The rows of these classes, rising, int64."""
        marks = ",".join("?" * len(labels))
        return self._numbers(f"SELECT row FROM items WHERE label IN ({marks}) ORDER BY row", labels)

    def labels(self) -> dict[str, int]:
        """Classes and how many pictures each has."""
        found = dict(self._run("SELECT label, COUNT(*) FROM items GROUP BY label ORDER BY label"))
        if not all(isinstance(label, str) for label in found):
            raise self._problem(ValueError("a class has a name that is no text"))
        return found

    def thumbnails(self, ids: Sequence[int]) -> dict[int, bytes]:
        """JPEGs by item."""
        marks = ",".join("?" * len(ids))
        found = dict(self._run(f"SELECT id, jpeg FROM thumbnails WHERE id IN ({marks})", ids))
        if not all(isinstance(jpeg, bytes) for jpeg in found.values()):
            raise self._problem(ValueError("a small picture is none"))
        return found

    def put(self, rows: Iterable[tuple[int, str, str, str, bytes | None]]) -> None:
        """Row, name, digest, class and thumbnail of pictures; a name that is there already gets the new ones.

        Inside :meth:`writing`.
        """
        for row, name, digest, label, jpeg in rows:
            known = "UPDATE items SET row = ?, digest = ?, label = ? WHERE name = ? RETURNING id"
            found = self._run(known, (row, digest, label, name))
            if found:
                self._run("DELETE FROM thumbnails WHERE id = ?", found[0])
            else:
                fresh = "INSERT INTO items (row, digest, label, name) VALUES (?, ?, ?, ?) RETURNING id"
                found = self._run(fresh, (row, digest, label, name))
            if jpeg is not None:
                self._run("INSERT INTO thumbnails VALUES (?, ?)", (found[0][0], jpeg))

    def change(self, item: int, *, name: str, label: str) -> None:
        """Another name or class for a picture that stays the same; inside :meth:`writing`."""
        self._run("UPDATE items SET name = ?, label = ? WHERE id = ?", (name, label, item))

    def remove(self, ids: Sequence[int]) -> None:
        """Forget pictures; inside :meth:`writing`."""
        for item in ids:
            self._run("DELETE FROM items WHERE id = ?", (item,))
            self._run("DELETE FROM thumbnails WHERE id = ?", (item,))

    def move(self, old: Sequence[int]) -> None:
        """Row ``old[i]`` becomes row ``i``; inside :meth:`writing`."""
        # In two steps, since a row may not be taken twice on the way.
        self._db.execute("UPDATE items SET row = -row - 1")
        self._db.executemany("UPDATE items SET row = ? WHERE row = ?", ((i, -r - 1) for i, r in enumerate(old)))

    def close(self) -> None:
        self._db.close()
