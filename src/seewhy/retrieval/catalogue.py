"""The SQLite database of an index: names, digests, classes, thumbnails and settings.

Every item, thumbnail and setting has a CRC-32 checksum.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from annotated_types import Ge, Lt, Predicate
from pydantic import ConfigDict, Strict, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ..errors import DataError
from ..storage.database import DatabaseKind, connect
from ..storage.reading import parse_json, reason
from .settings import Settings

FILE = "catalogue.sqlite"
FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL UNIQUE, label TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS thumbnails (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sums (id INTEGER PRIMARY KEY, item INTEGER NOT NULL, jpeg INTEGER);
"""
CATALOGUE = DatabaseKind("the catalogue of an index", 0x53576978, _SCHEMA)
_ITEMS = "SELECT i.id, i.row, i.name, i.digest, i.label, s.item FROM items i LEFT JOIN sums s ON s.id = i.id"

Size = Annotated[int, Strict(), Ge(0), Lt(2**48)]
Width = Annotated[int, Strict(), Ge(1), Lt(2**22 + 1)]
Generation = Annotated[int, Strict(), Ge(0), Lt(10**9)]
Columns = dict[Literal["look", "words", "parts", "whitened"], tuple[Width, Generation]]


class _Encoder(TypedDict):
    fingerprint: str
    encoder: NotRequired[str | None]


class _Whitening(TypedDict):
    file: Annotated[str, StringConstraints(pattern=r"^whitening-[0-9a-f]{8}\.safetensors$")]
    n: Size


class _Totals(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    n: Size
    sum: Size


_FACTS: dict[str, Any] = {
    "format": Annotated[int, Strict()],
    "version": Size,
    "n_rows": Size,
    "settings": dict[str, Any],
    "encoder": _Encoder,
    "columns": Annotated[Columns, Predicate(lambda columns: "look" in columns)],
    "totals": _Totals,
    "whitening": _Whitening | None,
}
"""Types of the settings in the catalogue."""


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(_FACTS[key])


def check(key: str, value: Any) -> None:
    """Check a setting of the index; raise ``ValueError`` if it is not valid."""
    try:
        _adapter(key).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(map(str, (key, *first["loc"])))
        raise ValueError(f"its {place} has the invalid value {str(first['input'])[:60]!r}: {first['msg']}") from None
    if key == "settings":
        kinds = {f.name: type(f.default) for f in fields(Settings)}
        for name, setting in value.items():
            allowed = (float, int) if kinds.get(name) is float else (kinds.get(name),)
            if type(setting) not in allowed:
                raise ValueError(f"its setting {name} has the invalid value {setting!r}")
        Settings(**value)


def _jpeg_sum(jpeg: bytes | None) -> int | None:
    return None if jpeg is None else zlib.crc32(jpeg)


def _totals(pairs: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Compute the number of items and the sum of the CRC-32 of their rows and classes, modulo 2³²."""
    sums = (zlib.crc32(f"{row} {label}".encode("utf-8", "surrogatepass")) for row, label in pairs)
    return {"n": len(pairs), "sum": sum(sums) % 2**32}


@dataclass(frozen=True)
class Item:
    """A picture of the index: its permanent number, the row of its vectors, its name, SHA-256 and class."""

    id: int
    row: int
    name: str
    digest: str
    label: str

    @property
    def sum(self) -> int:
        return zlib.crc32(json.dumps((self.id, self.row, self.name, self.digest, self.label)).encode())


class Catalogue:
    """The database of an index; ``wait`` is the longest time in seconds to wait for another writer."""

    def __init__(self, folder: Path, wait: float = 60.0) -> None:
        self.folder = folder
        self._wait = wait
        self._scanned: tuple[int, np.ndarray, list[str]] | None = None
        try:
            self._db = connect(folder / FILE, CATALOGUE, timeout=wait, isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
        except (sqlite3.Error, OSError) as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception | str) -> DataError:
        if "locked" in str(error):
            return DataError(
                f"Another process is writing to the index {self.folder} and did not finish within {self._wait:g} "
                "s. You can search meanwhile. Add the pictures when it has finished."
            )
        why = error if isinstance(error, str) else reason(error)
        return DataError(
            f"The index {self.folder} cannot be used: {why}. Free some disk space, or rebuild it from the "
            f"pictures: seewhy index PHOTOS -o {self.folder}"
        )

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction."""
        with self._db.lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    before, self._scanned = self._db.total_changes, None
                    yield self._db
                    if self._db.total_changes > before:  # without changes, readers need not reload
                        self.set(version=self.get("version", 0) + 1)
                    self._db.execute("COMMIT")
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                finally:
                    self._scanned = None
            except sqlite3.Error as error:
                raise self._problem(error) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Open a read transaction."""
        with self._db.lock:
            self._run("BEGIN")
            try:
                yield
            finally:
                self._run("COMMIT")

    def _run(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        try:
            with self._db.lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting of the index after checking it."""
        rows = self._run("SELECT value, sum FROM meta WHERE key = ?", (key,))
        if not rows:
            return default
        try:
            text, checksum = rows[0]
            if zlib.crc32(text.encode("utf-8", "surrogatepass")) != checksum:
                raise ValueError("its settings do not match their checksum")
            value = parse_json(text)
            check(key, value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # a column may hold bytes
            raise self._problem(error) from error
        return value

    def need(self, key: str) -> Any:
        """Return a required setting; raise ``DataError`` if it is missing."""
        if (value := self.get(key)) is None:
            raise self._problem(f"it has no entry {key}")
        return value

    def set(self, **facts: Any) -> None:
        for key, value in facts.items():
            text = json.dumps(value)
            self._run("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, zlib.crc32(text.encode())))

    def __len__(self) -> int:
        return int(self.need("totals")["n"])

    def known(self, column: str, values: Sequence[str]) -> dict[str, Item]:
        """Find items by their ``"name"`` or ``"digest"``."""
        return {getattr(item, column): item for item in self._items(column, values)}

    def at_rows(self, rows: Sequence[int]) -> dict[int, Item]:
        """Find items by their rows; raise ``DataError`` if a row has no item."""
        items = {item.row: item for item in self._items("row", rows)}
        if missing := set(rows) - items.keys():
            raise self._problem(f"the picture of row {min(missing)} is missing")
        return items

    def items(self) -> Iterator[Item]:
        """Yield all items in the order in which they were added."""
        yield from map(self._item, self._run(f"{_ITEMS} ORDER BY i.id"))

    def _items(self, column: str, values: Sequence[Any]) -> Iterator[Item]:
        for start in range(0, len(values), 500):
            part = values[start : start + 500]
            where = f"WHERE i.{column} IN ({','.join('?' * len(part))})"
            yield from map(self._item, self._run(f"{_ITEMS} {where}", part))

    def _item(self, row: tuple) -> Item:
        """Convert a database row to an :class:`Item` after checking its types and checksum."""
        *values, kept = row
        if [type(value) for value in values] != [int, int, str, str, str]:
            raise self._problem(f"an entry has the wrong types: {str(values)[:60]}")
        item = Item(*values)
        if kept != item.sum:
            raise self._problem(f"the entry of {item.name!r:.80} does not match its checksum")
        return item

    def _scan(self) -> tuple[np.ndarray, list[str]]:
        """Return the rows and classes of all items, sorted by row, after checking them against the checksum."""
        if not self._db.in_transaction:
            with self.reading():
                return self._scan()
        version = self.get("version", 0)
        if self._scanned is None or self._scanned[0] != version:
            pairs, n = self._run("SELECT row, label FROM items NOT INDEXED"), self.get("n_rows", 0)
            if not all(type(row) is int and 0 <= row < n and isinstance(label, str) for row, label in pairs):
                raise self._problem(f"the row of a picture is not from 0 to {n - 1}, or its class is not text")
            if self.need("totals") != _totals(pairs):
                raise self._problem("its pictures do not match their checksum")
            pairs.sort()
            self._scanned = version, np.array([row for row, _ in pairs], np.int64), [label for _, label in pairs]
        return self._scanned[1:]

    def rows(self, labels: Sequence[str] | None = None) -> np.ndarray:
        """Return the rows in use as int64 in ascending order, or only those of the classes in ``labels``."""
        rows, every = self._scan()
        if labels is None:
            return rows
        wanted = set(labels)
        return rows[np.fromiter((label in wanted for label in every), bool, len(every))]

    def labels(self) -> dict[str, int]:
        """Return the number of pictures in each class."""
        return dict(sorted(Counter(self._scan()[1]).items()))

    def thumbnails(self, ids: Sequence[int]) -> dict[int, bytes]:
        query = "SELECT i.id, t.jpeg, s.jpeg FROM items i LEFT JOIN thumbnails t USING (id) LEFT JOIN sums s USING (id)"
        rows = self._run(f"{query} WHERE i.id IN ({','.join('?' * len(ids))})", ids)
        for item, jpeg, kept in rows:
            if not isinstance(jpeg, bytes | None) or kept != _jpeg_sum(jpeg):
                raise self._problem(f"the thumbnail {item} does not match its checksum")
        return {item: jpeg for item, jpeg, _ in rows if jpeg is not None}

    def put(self, rows: Iterable[tuple[int, str, str, str, bytes | None]]) -> None:
        """Insert or replace pictures, given as row, name, digest, class and thumbnail."""
        gone: list[Item] = []
        added: list[Item] = []
        for row, name, digest, label, jpeg in rows:
            before = self.known("name", [name]).get(name)
            if before is None:
                fresh = "INSERT INTO items (row, digest, label, name) VALUES (?, ?, ?, ?) RETURNING id"
                now = Item(self._run(fresh, (row, digest, label, name))[0][0], row, name, digest, label)
            else:
                now = replace(before, row=row, digest=digest, label=label)
                self._run("UPDATE items SET row = ?, digest = ?, label = ? WHERE id = ?", (row, digest, label, now.id))
                self._run("DELETE FROM thumbnails WHERE id = ?", (now.id,))
            if jpeg is not None:
                self._run("INSERT INTO thumbnails VALUES (?, ?)", (now.id, jpeg))
            self._run("INSERT OR REPLACE INTO sums VALUES (?, ?, ?)", (now.id, now.sum, _jpeg_sum(jpeg)))
            gone += [before] if before is not None else []
            added.append(now)
        self._count(gone, added)

    def change(self, item: int, *, name: str, label: str) -> None:
        """Change the name and class of a picture."""
        (before,) = self._items("id", [item])
        now = replace(before, name=name, label=label)
        self._run("UPDATE items SET name = ?, label = ? WHERE id = ?", (name, label, item))
        self._run("UPDATE sums SET item = ? WHERE id = ?", (now.sum, item))
        self._count([before], [now])

    def remove(self, ids: Sequence[int]) -> None:
        gone = list(self._items("id", ids))
        for item in gone:
            for table in ("items", "thumbnails", "sums"):
                self._run(f"DELETE FROM {table} WHERE id = ?", (item.id,))
        self._count(gone, [])

    def _count(self, gone: Sequence[Item], added: Sequence[Item]) -> None:
        self._scanned = None
        before = self.need("totals")
        less, more = (_totals([(item.row, item.label) for item in items]) for items in (gone, added))
        n, total = (before[k] + more[k] - less[k] for k in ("n", "sum"))
        self.set(totals={"n": n, "sum": total % 2**32})

    def move(self, old: Sequence[int]) -> None:
        """Renumber the rows: row ``old[i]`` becomes row ``i``."""
        place = {row: i for i, row in enumerate(old)}
        items = [replace(item, row=place[item.row]) for item in self.items()]
        # In two steps, since a row may not be taken twice on the way.
        self._db.execute("UPDATE items SET row = -row - 1")
        self._db.executemany("UPDATE items SET row = ? WHERE id = ?", ((item.row, item.id) for item in items))
        self._db.executemany("UPDATE sums SET item = ? WHERE id = ?", ((item.sum, item.id) for item in items))
        self.set(totals=_totals([(item.row, item.label) for item in items]))
        self._scanned = None

    def damage(self) -> str:
        """Check the whole catalogue and describe the damage, if any."""
        try:
            wrong = [text for (text,) in self._run("PRAGMA integrity_check(3)") if text != "ok"]
            if wrong:
                return "; ".join(wrong)
            for (key,) in self._run("SELECT key FROM meta"):
                self.get(key)
            self._scan()
            for item in self.items():
                self.thumbnails([item.id])
        except DataError as error:
            return str(error)
        return ""

    def close(self) -> None:
        self._db.close()
