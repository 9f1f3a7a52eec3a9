"""SQLite files of SeeWhy: known by the application's number in their header; somebody else's is never changed."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ForeignFileError
from .cache import refuse_address
from .output import special

_MAGIC = b"SQLite format 3\0"
_NUMBER_AT = slice(68, 72)
_BESIDE: dict[str, tuple[bytes, ...]] = {
    "-journal": (b"\xd9\xd5\x05\xf9", bytes(4)),
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-shm": (),
}
"""What SQLite keeps beside a database, and how it begins."""
_guard = threading.RLock()
_opened: set[tuple[int, int]] = set()
"""Files that are, or were, open in this process as databases. Whoever reads such a file past SQLite and closes it takes
all of the process's locks from it, and from its log (a rule of POSIX): then two processes write at once, and the
database is lost. From then on only SQLite itself is asked about it."""


@dataclass(frozen=True)
class DatabaseKind:
    """A kind of database: its name in messages, the number in its header, and the statements that create its tables."""

    what: str
    number: int
    schema: str


def connect(path: Path, kind: DatabaseKind, **options: Any) -> sqlite3.Connection:
    """Open a database of SeeWhy's or create it, with write-ahead and its tables. A foreign file is not changed."""
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
            # The number in a header is easily written. Triggers and views run whenever a table is written or read.
            acting = db.execute(
                "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%'"
            ).fetchone()
            if acting is not None:
                form = acting[0] if acting[0] != "table" else "virtual table"
                raise sqlite3.DatabaseError(f"it has the {form} {acting[1]!r}, and SeeWhy makes none")
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(kind.schema)
        except UnicodeDecodeError as error:  # what SQLite would say of it is itself no text
            db.close()
            raise sqlite3.DatabaseError("it is damaged") from error
        except BaseException:
            db.close()
            raise
    return db


def memory(kind: DatabaseKind) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.executescript(kind.schema)
    return db


def check(path: Path, kind: DatabaseKind) -> bool:
    """Whether there is such a database; called before the work begins, without changing anything."""
    if special(path) or path.is_dir():
        raise ForeignFileError(f"{path} cannot hold {kind.what}. Expected the name of a file. Give one.")
    target = Path(os.path.realpath(path))
    with _guard:
        if target.exists() and _identity(target) in _opened:
            number: int | None = _asked_number(target)
        else:
            _check_beside(path, target)
            number = _number(target) if target.exists() else None
    if number is not None and number != kind.number:
        raise ForeignFileError(
            f"{path} exists and is not {kind.what} of SeeWhy. Expected such a file or a new name. Choose another name; "
            "the file was not changed."
        )
    return number is not None


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _number(path: Path) -> int:
    """The application's number in the header of a file; 0 where it is no database, or says none."""
    with open(path, "rb") as file:
        head = file.read(100)
    return int.from_bytes(head[_NUMBER_AT], "big") if head.startswith(_MAGIC) else 0


def _asked_number(path: Path) -> int:
    """The same of a database open in this process, by SQLite; of another file under its inode, by the header."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60)) as db:
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
                f"{beside} is in the way: SQLite needs that name for {path.name}. Choose another name, or move that "
                "file away; nothing was changed."
            )


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
