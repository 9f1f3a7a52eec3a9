"""SQLite files of SeeWhy: known by the application's number in their header; somebody else's is never changed.

A database that an earlier version made has no number. It is known by its tables, which must be exactly ours, and gets
the number when it is opened.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ForeignFileError
from .addresses import refuse_address
from .output import special

_MAGIC = b"SQLite format 3\0"
_NUMBER_AT = slice(68, 72)
_BESIDE: dict[str, tuple[bytes, ...]] = {
    "-journal": (b"\xd9\xd5\x05\xf9", bytes(4)),
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-shm": (),
}
"""What SQLite keeps beside a database, and how it begins."""
_COPIED = 2**28
"""Bytes of a database without a number up to which it is copied to see the tables that are still in its log."""
_guard = threading.RLock()
_opened: set[tuple[int, int]] = set()
"""Files that are, or were, open in this process as databases. Whoever reads such a file past SQLite and closes it takes
all of the process's locks from it, and from its log (a rule of POSIX): then two processes write at once, and the
database is lost. From then on only SQLite itself is asked about it."""


@dataclass(frozen=True)
class DatabaseKind:
    """One kind of database."""

    what: str
    number: int
    schema: str
    earlier: tuple[str, ...]

    def is_own(self, tables: dict[str, str] | None) -> bool:
        """Whether these are the tables, with their definitions, that an earlier version made."""
        for script in self.earlier:
            with contextlib.closing(sqlite3.connect(":memory:")) as db:
                db.executescript(script)
                if _tables(db) == tables:
                    return True
        return False


def connect(path: Path, kind: DatabaseKind, **options: Any) -> sqlite3.Connection:
    """Open a database of SeeWhy's, or make it; write-ahead, the tables there."""
    refuse_address(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _guard:  # nobody may look at the file between its being looked at and its being known as opened
        if not check(path, kind):
            _make(path, kind)
        db = sqlite3.connect(os.path.abspath(path), check_same_thread=False, **options)  # ``file:…`` would be a URI
        try:
            _opened.add(_identity(path))
            db.execute("PRAGMA trusted_schema=OFF")
            db.execute("PRAGMA cell_size_check=ON")
            _refuse_what_acts(db)
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(kind.schema)
            if db.execute("PRAGMA application_id").fetchone()[0] != kind.number:
                db.execute(f"PRAGMA application_id = {kind.number}")
        except UnicodeDecodeError as error:  # what SQLite would say of it is itself no text
            db.close()
            raise sqlite3.DatabaseError("it is damaged") from error
        except BaseException:
            db.close()
            raise
    return db


def _refuse_what_acts(db: sqlite3.Connection) -> None:
    """The number in a header is easily written. Triggers and views run whenever a table is written or read."""
    acting = db.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1"
    ).fetchone()
    if acting is not None:
        kind = acting[0] if acting[0] != "table" else "virtual table"
        raise sqlite3.DatabaseError(f"it has the {kind} {acting[1]!r}, and SeeWhy makes none")


def memory(kind: DatabaseKind) -> sqlite3.Connection:
    """A database that is gone with the process."""
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.executescript(kind.schema)
    return db


def check(path: Path, kind: DatabaseKind) -> bool:
    """Whether there is such a database; asked before the work begins, and nothing is touched."""
    if special(path) or path.is_dir():
        raise ForeignFileError(
            f"{path} is no file that {kind.what} can be kept in. The name of a file was expected. Give one."
        )
    target = Path(os.path.realpath(path))
    with _guard:
        if not _open_here(target, kind):
            _check_beside(path, target)
            if not target.exists():
                return False
            if not _is_own(target, kind):
                raise _foreign(path, kind)
    return True


def _foreign(path: Path, kind: DatabaseKind) -> ForeignFileError:
    return ForeignFileError(
        f"{path} exists and is not {kind.what} that SeeWhy made. Such a file or a new name was expected. "
        "Choose another name; the file was left as it is."
    )


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _open_here(target: Path, kind: DatabaseKind) -> bool:
    """Whether it is such a database and open in this process; another file under a number that is free again is not."""
    if not target.exists() or _identity(target) not in _opened:
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True, timeout=60)) as db:
            number = db.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False
    if number != kind.number:
        raise _foreign(target, kind)
    return True


def _check_beside(path: Path, target: Path) -> None:
    for ending, starts in _BESIDE.items():
        beside = Path(f"{target}{ending}")
        there = beside.exists() or special(beside)
        if there and (special(beside) or not target.exists() or not _begins(beside, starts)):
            raise ForeignFileError(
                f"{beside} lies where SQLite would keep what belongs to {path.name}, and is something else. "
                "Choose another name, or move that file away; nothing was changed."
            )


def _begins(path: Path, starts: tuple[bytes, ...]) -> bool:
    with open(path, "rb") as file:
        head = file.read(4)
    return not starts or not head or head in starts


def _is_own(path: Path, kind: DatabaseKind) -> bool:
    with open(path, "rb") as file:
        head = file.read(100)
    if not head.startswith(_MAGIC):
        return False
    number = int.from_bytes(head[_NUMBER_AT], "big")
    if number:
        return number == kind.number
    if kind.is_own(_read_only(path)):
        return True
    log = Path(f"{path}-wal")
    # An earlier version that was killed may have its tables in the log alone; opening it there would change it.
    return log.exists() and path.stat().st_size <= _COPIED and kind.is_own(_in_a_copy(path, log))


def _read_only(path: Path) -> dict[str, str] | None:
    """The tables in the file itself; neither locks nor a log, so that nothing at all is written beside it."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
            return _tables(db)
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def _in_a_copy(path: Path, log: Path) -> dict[str, str] | None:
    with tempfile.TemporaryDirectory(prefix="seewhy-") as folder:
        copy = Path(folder) / "copy"
        shutil.copyfile(path, copy)
        shutil.copyfile(log, f"{copy}-wal")
        try:
            with contextlib.closing(sqlite3.connect(copy)) as db:
                return _tables(db)
        except (sqlite3.Error, UnicodeDecodeError):
            return None


def _tables(db: sqlite3.Connection) -> dict[str, str]:
    rows = db.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'")
    return {name: " ".join(str(sql).split()) for name, sql in rows}


def _make(path: Path, kind: DatabaseKind) -> None:
    """A new database takes its name when it is whole, so that nobody ever meets an empty file; the first one stays."""
    target = Path(os.path.realpath(path))
    fresh = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as db:
            db.executescript(f"BEGIN; {kind.schema} PRAGMA application_id = {kind.number}; COMMIT;")
        try:
            os.link(fresh, target)
        except FileExistsError:
            return  # another process was first, and its database is as good
        except OSError:  # a disk without links
            os.replace(fresh, target)
    finally:
        for leftover in (fresh, Path(f"{fresh}-journal")):
            leftover.unlink(missing_ok=True)
