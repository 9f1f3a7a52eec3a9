"""What an index knows beside its vectors: names, digests, classes, thumbnails, settings, in SQLite; each with a sum."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..storage.database import DatabaseKind, connect
from ..storage.reading import parse_json
from .approximate import Calibration
from .settings import Settings

COLUMNS = frozenset({"look", "words", "parts", "whitened"})
WIDEST = 1 << 22
"""Numbers of the widest row."""


def check(key: str, value: Any) -> None:
    """Refuse what no index says of itself.

    Raises:
        ValueError: says what.
    """
    _CHECKS[key](value)


def _count(value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"a count is {value!r}")


def _settings(value: Any) -> None:
    kinds = {f.name: type(f.default) for f in fields(Settings)}
    if not isinstance(value, dict) or set(value) - set(kinds):
        raise ValueError("its settings are none")
    for name, one in value.items():
        if type(one) is not kinds[name] and not (kinds[name] is float and type(one) is int):
            raise ValueError(f"its setting {name} is {one!r}")
    Settings(**value)


def _encoder(value: Any) -> None:
    about = value if isinstance(value, dict) else {}
    if not isinstance(about.get("fingerprint"), str) or not isinstance(about.get("encoder", 0), str | None):
        raise ValueError("it does not say its encoder")


def _columns(value: Any) -> None:
    if not isinstance(value, dict) or "look" not in value or set(value) - COLUMNS:
        raise ValueError("its columns are none")
    for shape in value.values():
        if not isinstance(shape, list) or [type(n) for n in shape] != [int, int]:
            raise ValueError(f"a column is {shape!r}")
        if not 1 <= shape[0] <= WIDEST or not 0 <= shape[1] < 10**9:
            raise ValueError(f"a column is {shape!r}")


def _whitening(value: Any) -> None:
    if value is not None:
        _named_file(value, r"whitening-[0-9a-f]{8}\.safetensors")
        _count(value.get("n"))


def _approximate(value: Any) -> None:
    if value is None:
        return
    _named_file(value, r"approximate-[0-9a-f]{8}\.faiss")
    _count(value.get("n_gone"))
    if value.get("column") not in ("look", "whitened"):
        raise ValueError(f"its approximate index is of {value.get('column')!r}")
    if not re.fullmatch("[0-9a-f]{64}|", str(value.get("sha256", ""))):
        raise ValueError("the digest of its approximate index is none")
    figures = value.get("calibration")
    if not isinstance(figures, dict) or set(figures) != {f.name for f in fields(Calibration)}:
        raise ValueError("its approximate index has no figures")
    for name, one in figures.items():
        if name in ("recall", "recall_low", "target"):
            if type(one) not in (int, float) or not 0 <= one <= 1:
                raise ValueError(f"the {name} of its approximate index is {one!r}")
        else:
            _count(one)
    if not 1 <= figures["n_probe"] <= figures["n_lists"] <= 1 << 24:
        raise ValueError(f"its approximate index looks into {figures['n_probe']} of {figures['n_lists']} lists")


def _totals(value: Any) -> None:
    if not isinstance(value, dict) or set(value) != {"n", "sum"}:
        raise ValueError("it does not say how many pictures it has")
    for one in value.values():
        _count(one)


def _named_file(value: Any, pattern: str) -> None:
    name = value.get("file") if isinstance(value, dict) else None
    if not isinstance(name, str) or re.fullmatch(pattern, name) is None:
        raise ValueError(f"it names the file {name!r}, which is none of its own")


def _format(value: Any) -> None:
    if type(value) is not int:
        raise ValueError(f"its format is {value!r}")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "format": _format,
    "version": _count,
    "n_rows": _count,
    "settings": _settings,
    "encoder": _encoder,
    "columns": _columns,
    "totals": _totals,
    "whitening": _whitening,
    "approximate": _approximate,
}


_BITS = str.maketrans("01", " \t")
_SEAL = re.compile(r"\n[ \t]{32}\Z")
Pair = tuple[int, str]
"""Row and class of an item."""


def sum_of(values: Any) -> int:
    """CRC-32 of plain values."""
    return zlib.crc32(json.dumps(values).encode())


def jpeg_sum(jpeg: bytes | None) -> int | None:
    return None if jpeg is None else zlib.crc32(jpeg)


@dataclass(frozen=True)
class Totals:
    """Of all items."""

    n: int = 0
    sum: int = 0

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Totals:
        return cls().changed((None, pair) for pair in pairs)

    def changed(self, changes: Iterable[tuple[Pair | None, Pair | None]]) -> Totals:
        """After items were added, taken out, or changed: what each was before, and what it is now."""
        n, total = self.n, self.sum
        for before, now in changes:
            if before is not None:
                n, total = n - 1, total - zlib.crc32(f"{before[0]} {before[1]}".encode("utf-8", "surrogatepass"))
            if now is not None:
                n, total = n + 1, total + zlib.crc32(f"{now[0]} {now[1]}".encode("utf-8", "surrogatepass"))
        return Totals(n, total % 2**32)

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def sealed(text: str) -> str:
    """A JSON text with its sum behind it.

    Example:
        >>> unsealed(sealed("[1]"))
        '[1]'
    """
    return text + _seal(text)


def _seal(text: str) -> str:
    return "\n" + f"{zlib.crc32(text.encode()):032b}".translate(_BITS)


def unsealed(text: str) -> str:
    """The text without its sum; one that an earlier version wrote has none."""
    found = _SEAL.search(text)
    if found is None:
        return text
    value = text[: found.start()]
    if _seal(value) != found.group():
        raise ValueError(f"it says {value[:60]}, which is not as it was written")
    return value


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
_SUMS = """
CREATE TABLE IF NOT EXISTS sums (id INTEGER PRIMARY KEY, item INTEGER NOT NULL, jpeg INTEGER);
"""
CATALOGUE = DatabaseKind("the catalogue of an index", 0x53576978, _SCHEMA + _SUMS, earlier=(_SCHEMA,))
_ITEMS = "SELECT i.id, i.row, i.name, i.digest, i.label, s.item FROM items i LEFT JOIN sums s ON s.id = i.id"


@dataclass(frozen=True)
class Item:
    """One picture of the index."""

    id: int
    row: int
    name: str
    digest: str
    label: str

    @property
    def sum(self) -> int:
        return sum_of(astuple(self))

    @property
    def pair(self) -> Pair:
        return self.row, self.label


class Catalogue:
    """The database of an index."""

    def __init__(self, folder: Path, wait: float = 60.0) -> None:
        self.folder = folder
        self._wait = wait
        self._lock = threading.RLock()
        self._scanned: tuple[int, np.ndarray, list[str]] | None = None
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
        """One step: all of it is kept, or nothing."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    before, self._scanned = self._db.total_changes, None
                    yield self._db
                    if self._db.total_changes > before:  # else readers need not look again
                        self._set("version", self.get("version", 0) + 1)
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
        """What the index says of itself, checked."""
        found = self._run("SELECT value FROM meta WHERE key = ?", (key,))
        if not found:
            return default
        try:
            value = parse_json(unsealed(found[0][0]))
            check(key, value)
        except (ValueError, TypeError, KeyError) as error:  # a column may hold bytes
            raise self._problem(error) from error
        return value

    def need(self, key: str) -> Any:
        """The same, of what every index says."""
        if (found := self.get(key)) is None:
            raise self._problem(ValueError(f"it does not say its {key}"))
        return found

    def settings(self) -> Settings:
        """How it was made."""
        return Settings(**self.need("settings"))

    def _set(self, key: str, value: Any) -> None:
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, sealed(json.dumps(value))))

    def set(self, **settings: Any) -> None:
        """Keep settings; inside :meth:`writing`."""
        for key, value in settings.items():
            self._set(key, value)

    def __len__(self) -> int:
        totals = self.get("totals")
        return int(self._run("SELECT COUNT(*) FROM items")[0][0]) if totals is None else totals["n"]

    def known(self, column: str, values: Sequence[str]) -> dict[str, Item]:
        """Items by ``"name"`` or ``"digest"``."""
        return {getattr(item, column): item for item in self._items(column, values)}

    def at_rows(self, rows: Sequence[int]) -> dict[int, Item]:
        """Items by row, of rows in use."""
        found = {item.row: item for item in self._items("row", rows)}
        if missing := set(rows) - found.keys():
            raise self._problem(ValueError(f"the picture of row {min(missing)} is not there"))
        return found

    def _items(self, column: str, values: Sequence[Any]) -> Iterator[Item]:
        for start in range(0, len(values), 500):
            part = values[start : start + 500]
            where = f"WHERE i.{column} IN ({','.join('?' * len(part))})"
            yield from map(self._item, self._run(f"{_ITEMS} {where}", part))

    def _item(self, row: tuple) -> Item:
        """SQLite keeps any kind of value in any column."""
        *values, kept = row
        if [type(value) for value in values] != [int, int, str, str, str]:
            raise self._problem(ValueError(f"a picture is kept as {str(values)[:60]}"))
        item = Item(*values)
        if kept != item.sum and self.has_sums:
            raise self._problem(ValueError(f"what is kept of {item.name!r:.80} is not as it was written"))
        return item

    @property
    def has_sums(self) -> bool:
        """Whether what is kept can be checked; an earlier version wrote nothing to check it by."""
        return self.get("totals") is not None

    def items(self) -> Iterator[Item]:
        """Every item, in the order added."""
        yield from map(self._item, self._run(f"{_ITEMS} ORDER BY i.id"))

    def _scan(self) -> tuple[np.ndarray, list[str]]:
        """Row and class of every item, by row, once for each step; that none is missing or changed is known of all."""
        if not self._db.in_transaction:
            with self.reading():
                return self._scan()
        version = self.get("version", 0)
        if self._scanned is None or self._scanned[0] != version:
            found, n = self._run("SELECT row, label FROM items NOT INDEXED"), self.get("n_rows", 0)
            if not all(type(row) is int and 0 <= row < n and isinstance(label, str) for row, label in found):
                raise self._problem(ValueError(f"a picture is of no row from 0 to {n - 1}, or its class is no text"))
            if (totals := self.get("totals")) is not None and totals != Totals.of(found).to_json():
                raise self._problem(ValueError("pictures are missing, or not as they were written"))
            found.sort()
            self._scanned = version, np.array([row for row, _ in found], np.int64), [label for _, label in found]
        return self._scanned[1:]

    def rows(self) -> np.ndarray:
        """The rows in use, rising, int64."""
        return self._scan()[0]

    def rows_of(self, labels: Sequence[str]) -> np.ndarray:
        """The rows of these classes, rising, int64."""
        rows, every = self._scan()
        wanted = set(labels)
        return rows[np.fromiter((label in wanted for label in every), bool, len(every))]

    def labels(self) -> dict[str, int]:
        """Classes and how many pictures each has."""
        return dict(sorted(Counter(self._scan()[1]).items()))

    def thumbnails(self, ids: Sequence[int]) -> dict[int, bytes]:
        """JPEGs by item."""
        query = "SELECT i.id, t.jpeg, s.jpeg FROM items i LEFT JOIN thumbnails t USING (id) LEFT JOIN sums s USING (id)"
        found = self._run(f"{query} WHERE i.id IN ({','.join('?' * len(ids))})", ids)
        for item, jpeg, kept in found:
            if not isinstance(jpeg, bytes | None) or (kept != jpeg_sum(jpeg) and self.has_sums):
                raise self._problem(ValueError(f"the small picture {item} is not as it was written"))
        return {item: jpeg for item, jpeg, _ in found if jpeg is not None}

    def put(self, rows: Iterable[tuple[int, str, str, str, bytes | None]]) -> None:
        """Row, name, digest, class and thumbnail of pictures; a name that is there already gets the new ones.

        Inside :meth:`writing`.
        """
        changes = []
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
            self._run("INSERT OR REPLACE INTO sums VALUES (?, ?, ?)", (now.id, now.sum, jpeg_sum(jpeg)))
            changes.append((before, now))
        self._count(changes)

    def change(self, item: int, *, name: str, label: str) -> None:
        """Another name or class for a picture that stays the same; inside :meth:`writing`."""
        (before,) = self._items("id", [item])
        now = replace(before, name=name, label=label)
        self._run("UPDATE items SET name = ?, label = ? WHERE id = ?", (name, label, item))
        self._run("UPDATE sums SET item = ? WHERE id = ?", (now.sum, item))
        self._count([(before, now)])

    def remove(self, ids: Sequence[int]) -> None:
        """Forget pictures; inside :meth:`writing`."""
        gone = list(self._items("id", ids))
        for item in gone:
            for table in ("items", "thumbnails", "sums"):
                self._run(f"DELETE FROM {table} WHERE id = ?", (item.id,))
        self._count((item, None) for item in gone)

    def _count(self, changes: Iterable[tuple[Item | None, Item | None]]) -> None:
        self._scanned = None
        if (totals := self.get("totals")) is not None:
            pairs = (
                (None if before is None else before.pair, None if now is None else now.pair) for before, now in changes
            )
            self._set("totals", Totals(**totals).changed(pairs).to_json())

    def move(self, old: Sequence[int]) -> None:
        """Row ``old[i]`` becomes row ``i``; inside :meth:`writing`."""
        place = {row: i for i, row in enumerate(old)}
        items = [replace(item, row=place[item.row]) for item in self.items()]
        # In two steps, since a row may not be taken twice on the way.
        self._db.execute("UPDATE items SET row = -row - 1")
        self._db.executemany("UPDATE items SET row = ? WHERE id = ?", ((item.row, item.id) for item in items))
        self._db.executemany("UPDATE sums SET item = ? WHERE id = ?", ((item.sum, item.id) for item in items))
        if self.has_sums:
            self._set("totals", Totals.of(item.pair for item in items).to_json())
        self._scanned = None

    def add_sums(self) -> None:
        """Sums of what is there as it is, where an earlier version wrote none; inside :meth:`writing`."""
        for item in self.items():
            ((jpeg,),) = self._run("SELECT jpeg FROM thumbnails WHERE id = ?", (item.id,)) or ((None,),)
            self._run("INSERT OR REPLACE INTO sums VALUES (?, ?, ?)", (item.id, item.sum, jpeg_sum(jpeg)))
        self._set("totals", Totals.of(item.pair for item in self.items()).to_json())

    def damage(self) -> str:
        """What of it is not as it was written, after reading all of it; empty where it is whole."""
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
