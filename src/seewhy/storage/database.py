"""SQLite databases of SeeWhy, recognised by the application id; other databases are never changed."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import weakref
from dataclasses import dataclass
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from ..errors import ForeignFileError
from .cache import refuse_address
from .folders import renamed_first
from .output import check_apart, check_file, check_single, special, write

_MAGIC = b"SQLite format 3\0"
_NUMBER_AT = slice(68, 72)
_BESIDE: dict[str, tuple[bytes, ...]] = {
    "-journal": (b"\xd9\xd5\x05\xf9", bytes(4)),
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-shm": (),
}
"""Suffixes of SQLite's own files next to a database, and their first bytes."""
_guard = threading.RLock()


@dataclass(frozen=True)
class DatabaseKind:
    """A kind of database: its name in messages, its application id, and the statements that create its tables.

    ``journal`` is SQLite's journal mode. With ``DELETE``, the file itself holds every commit, and so does a copy of it;
    with ``WAL``, people can read while another process writes for long.
    """

    what: str
    number: int
    schema: str
    journal: str = "WAL"


class Connection(sqlite3.Connection):
    """A connection that ``_open`` lists until it closes. Only SQLite may read a database that is open here: by a rule
    of POSIX, closing such a file elsewhere releases the process's locks, so that two processes could write at once.

    Threads that share a connection hold its ``lock`` while they use it.
    """

    identity: tuple[int, int]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lock, self.process = threading.RLock(), os.getpid()

    def close(self) -> None:
        with self.lock, _guard:
            super().close()
            _open.discard(self)


_open: weakref.WeakSet[Connection] = weakref.WeakSet()


def _close_all() -> None:
    """Close all databases of this process, so that SQLite moves their write-ahead logs into the files.

    The locks stay taken: no other thread uses a closed database before the process ends.
    """
    for db in [*_open]:
        if db.process == os.getpid() and db.lock.acquire(timeout=5):
            db.close()


@cache
def _close_at_exit(_process: int) -> None:
    Finalize(None, _close_all, exitpriority=-100)  # unlike ``atexit``, also at the end of a worker process


def connect(path: Path, kind: DatabaseKind, **options: Any) -> Connection:
    """Open or create a database; a database of another application is not changed.

    A database in a folder that cannot be written can be read.
    """
    refuse_address(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _guard:  # the check and the entry in ``_open`` must be one step
        if not check(path, kind):
            _make(path, kind)
        reads_only = not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK)
        if not reads_only:
            check_single(path)
        name = _unwritable(path) if reads_only else os.path.realpath(path)  # ``file:…`` would be a URI
        db = sqlite3.connect(name, uri=reads_only, check_same_thread=False, factory=Connection, **options)
        try:
            db.identity = _identity(path)
            _open.add(db)
            _close_at_exit(os.getpid())
            db.execute("PRAGMA trusted_schema=OFF")
            db.execute("PRAGMA cell_size_check=ON")
            _check_schema(db, kind)
            if not reads_only:
                _set_journal(db, kind.journal)
                db.executescript(kind.schema)
        except UnicodeDecodeError as error:  # SQLite's error message is not UTF-8
            db.close()
            raise sqlite3.DatabaseError("it is damaged") from error
        except BaseException:
            db.close()
            raise
    return db


def _set_journal(db: sqlite3.Connection, mode: str) -> None:
    try:
        db.execute(f"PRAGMA journal_mode={mode}")
    except sqlite3.OperationalError:
        # Another process has it open with the log of an earlier version; the next opening removes that.
        if db.execute("PRAGMA journal_mode").fetchone()[0].upper() == mode or mode == "WAL":
            raise


def _unwritable(path: Path) -> str:
    """Return the URI of a database in a folder that cannot be written, so that SQLite makes no log in the folder."""
    target = Path(os.path.realpath(path))
    log = Path(f"{target}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    return f"{target.as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"


def _check_schema(db: sqlite3.Connection, kind: DatabaseKind) -> None:
    """Check that nothing in a database acts or computes when it is used: its number in the header is no proof.

    Triggers and views run whenever a table is read or written, and a column may be computed by an expression. Plain
    tables of other names are never used.
    """
    own = _definitions(kind)
    for form, name, table, sql in db.execute("SELECT type, name, lower(tbl_name), sql FROM sqlite_master"):
        is_virtual = (sql or "").upper().startswith("CREATE VIRTUAL")
        if form in ("table", "index") and not is_virtual and table not in own:
            continue
        if sql is not None and own.get(name.lower()) != " ".join(sql.split()):
            told = "virtual table" if is_virtual else form
            raise sqlite3.DatabaseError(f"its {told} {name!r} is not as SeeWhy creates it")


@cache
def _definitions(kind: DatabaseKind) -> dict[str, str]:
    """Return the SQL of each table by its name."""
    with contextlib.closing(memory(kind)) as db:
        rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: " ".join(sql.split()) for name, sql in rows}


def memory(kind: DatabaseKind) -> Connection:
    db = sqlite3.connect(":memory:", check_same_thread=False, factory=Connection)
    db.executescript(kind.schema)
    return db


def check(path: Path, kind: DatabaseKind) -> bool:
    """Return whether the database exists, after a check that it can be opened or created."""
    if special(path) or path.is_dir():
        raise ForeignFileError(f"{path} must be a file to store {kind.what}.")
    target = Path(os.path.realpath(path))
    with _guard:
        if target.exists() and _identity(target) in {db.identity for db in _open}:
            number: int | None = _asked_number(target)
        else:
            _check_beside(path, target)
            number = _number(target) if target.exists() else None
    if number is not None and number != kind.number:
        raise ForeignFileError(
            f"{path} exists and is not {kind.what} of SeeWhy. Choose another name; the file was not changed."
        )
    return number is not None


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _number(path: Path) -> int:
    """Return the application id in a file's header; 0 if the file is not a database."""
    with open(path, "rb") as file:
        head = file.read(100)
    return int.from_bytes(head[_NUMBER_AT], "big") if head.startswith(_MAGIC) else 0


def _asked_number(path: Path) -> int:
    """Return the application id of a database that is open in this process."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=60)) as db:
            return int(db.execute("PRAGMA application_id").fetchone()[0])
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return _number(path)


def _check_beside(path: Path, target: Path) -> None:
    for ending, starts in _BESIDE.items():
        beside = Path(f"{target}{ending}")
        if not (beside.exists() or special(beside)):
            continue
        begins = target.exists() and not special(beside)
        if begins:
            with open(beside, "rb") as file:
                head = file.read(4)
            begins = not starts or not head or head in starts
        if not begins:
            raise ForeignFileError(
                f"{beside} is in the way: SQLite needs that name for {path.name}. Choose another name, or "
                "move that file away."
            )


def _make(path: Path, kind: DatabaseKind) -> None:
    """Create a database under a temporary name, and rename it unless another process was first."""
    target = Path(os.path.realpath(path))
    fresh = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as db:
            db.executescript(f"BEGIN; {kind.schema} PRAGMA application_id = {kind.number}; COMMIT;")
        renamed_first(fresh, target)
    finally:
        for leftover in (fresh, Path(f"{fresh}-journal")):
            leftover.unlink(missing_ok=True)


def backup(db: Connection, source: Path, path: Path, kind: DatabaseKind, *, force: bool = False) -> Path:
    """Copy a database to a file by SQLite's own backup, also while others write; only a copy of this kind is replaced.

    Raises:
        ForeignFileError: the file exists and is another one, or it is open.
    """
    check_apart(path, [source])
    check_file(path, force=force)
    if check(path, kind) and any(Path(f"{os.path.realpath(path)}{ending}").exists() for ending in _BESIDE):
        raise ForeignFileError(f"{path} is a database that is in use. Choose another name.")
    with db.lock, contextlib.closing(memory(kind)) as copy:
        db.backup(copy)
        return write(path, copy.serialize(), force=force)
