"""A store of annotations in one SQLite file that several people can edit at once.

A version is saved only if it is based on the latest one. A draft that would be overwritten is moved to the table
``shelved``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ...encoders.stream import file_digest
from ...errors import DataError, ImageError
from ...storage.database import DatabaseKind, backup, connect
from ...storage.output import check_single
from ...storage.reading import json_value, reason
from .records import TASKS, Content, Draft, Judgement, Picture, Version, check_author, check_content, read_record

_SCHEMA = Path(__file__).with_suffix(".sql").read_text("utf-8")
ANNOTATIONS = DatabaseKind("a file of annotations", 0x5357616E, _SCHEMA, journal="DELETE")
_OWN = "picture = ? AND task = ? AND author = ?"
T = TypeVar("T")


@dataclass(frozen=True)
class Conflict:
    """A failed save: ``latest`` is newer than the version on which the draft is based."""

    latest: Version


class AnnotationStore:
    """Pictures, versions, drafts and comparisons in one file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._given: dict[str, Picture] = {}
        """The pictures added since the file was opened. The names in the file itself may be anybody's."""
        with self._disk_errors():
            self._db = connect(self.path, ANNOTATIONS, timeout=30, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA synchronous=FULL")

    def close(self) -> None:
        self._db.close()

    def backup(self, path: Path, *, force: bool = False) -> Path:
        """Copy everything to a new file, also while people write (:func:`seewhy.storage.database.backup`)."""
        with self._disk_errors():
            return backup(self._db, self.path, path, ANNOTATIONS, force=force)

    # pictures

    def add_pictures(self, pictures: Iterable[Picture]) -> None:
        """Add pictures. If a picture is already known, its file name is updated."""
        pictures = [*pictures]
        values = "(:key, :digest, :name, :width, :height) ON CONFLICT (key) DO UPDATE SET name = excluded.name"
        with self._writing():
            self._db.executemany(f"INSERT INTO pictures VALUES {values}", [vars(p) for p in pictures])
        self._given |= {picture.key: picture for picture in pictures}

    def pictures(self) -> tuple[Picture, ...]:
        """Return all pictures in the order in which they were added."""
        return tuple(self._checked(_picture, "SELECT * FROM pictures ORDER BY rowid"))

    def picture(self, key: str) -> Picture | None:
        return next(iter(self._checked(_picture, "SELECT * FROM pictures WHERE key = ?", key)), None)

    def known(self, key: str) -> Picture:
        """Return a picture; raise ``DataError`` if it is unknown."""
        if (picture := self.picture(key)) is None:
            raise DataError(f"There is no picture {key!r}. Reload the list.")
        return picture

    def file(self, key: str) -> str:
        """Return the file of a picture that was added since this store was opened, if it has the same bytes still."""
        known, given = self.known(key), self._given.get(key)
        if given is None:
            raise ImageError(Path(known.name).name, "is not among the pictures given; start the page with its folder")
        if not file_digest(given.name) == given.digest == known.digest:
            raise ImageError(Path(known.name).name, "was removed or changed since the page was started; start it again")
        return given.name

    # versions

    def versions(self, key: str, task: str) -> tuple[Version, ...]:
        """Return all versions of a text, oldest first."""
        query = "SELECT * FROM versions WHERE picture = ? AND task = ? ORDER BY number"
        return tuple(self._checked(_version, query, key, task))

    def versions_after(self, row: int, task: str) -> list[tuple[int, str, Version]]:
        """Return the versions saved after a row of the table, oldest first, each with its row and its picture."""
        query = "SELECT rowid AS row, * FROM versions WHERE rowid > ? AND task = ? ORDER BY rowid"
        return self._checked(lambda one: (one["row"], one["picture"], _version(one)), query, row, task)

    def histories(self) -> dict[str, dict[str, list[Version]]]:
        histories: dict[str, dict[str, list[Version]]] = {}
        query = "SELECT * FROM versions ORDER BY picture, task, number"
        for key, version in self._checked(lambda row: (row["picture"], _version(row)), query):
            histories.setdefault(key, {task: [] for task in TASKS}).setdefault(version.task, []).append(version)
        return histories

    def latest(self, key: str, task: str) -> Version | None:
        versions = self.versions(key, task)
        return versions[-1] if versions else None

    def seed(self, key: str, task: str, author: str, content: Content) -> bool:
        """Save a model's proposal as version 0, unless a version or a draft exists; return whether it was saved."""
        content = check_content(task, content)
        with self._writing():
            for table in ("versions", "drafts"):
                if self._rows(f"SELECT 1 FROM {table} WHERE picture = ? AND task = ? LIMIT 1", key, task):
                    return False
            self._add_version(key, Version(task, 0, check_author(author), "seed", content, 0.0, None, _now()))
        return True

    def save(
        self, key: str, task: str, author: str, content: object, base: int, seconds: float, *, merges: bool = False
    ) -> Version | Conflict:
        """Add a version based on version ``base`` (0: none), delete the author's draft, and return the version.

        If a version newer than ``base`` exists, nothing is saved and the result is a :class:`Conflict`.
        """
        author, kept = check_author(author), check_content(task, content)
        with self._writing():
            self.known(key)
            latest = self.latest(key, task)
            if latest is not None and latest.number != base:
                return Conflict(latest)
            if latest is None and base:
                raise DataError(f"This picture has no version {base}, on which this one is based. Reload the page.")
            # People's first version is 1, with or without a seed.
            number = (latest.number if latest else 0) + 1
            seconds = round(max(0.0, seconds), 1)
            version = Version(task, number, author, "merge" if merges else "round", kept, seconds, base, _now())
            self._add_version(key, version)
            # A different draft was typed in another window, so it is kept on the shelf.
            draft = self.draft(key, task, author)
            if draft is not None and draft.content != kept:
                self._shelve(key, task, author)
            self._db.execute(f"DELETE FROM drafts WHERE {_OWN}", (key, task, author))
        return version

    def _add_version(self, key: str, version: Version) -> None:
        self._add("versions", {"picture": key, **vars(version), "content": json.dumps(version.content)})

    # drafts

    def keep_draft(
        self,
        key: str,
        task: str,
        author: str,
        content: object,
        base: int,
        seconds: float,
        seen: int,
        *,
        tab: str = "",
        sequence: int = 0,
    ) -> tuple[int, bool]:
        """Save a draft that replaces revision ``seen`` (0: none).

        Returns the new revision, and whether a different draft was moved to the table ``shelved``.
        """
        author, kept = check_author(author), check_content(task, content)
        with self._writing():
            self.known(key)
            there = self.draft(key, task, author)
            same_tab = there is not None and tab != "" and there.tab == tab
            if there is not None and same_tab and sequence < there.sequence:
                return there.revision, False
            revision = 1 + max(seen, there.revision if there else 0)
            shelves = there is not None and not same_tab and there.revision != seen and there.content != kept
            if shelves:
                self._shelve(key, task, author)
            draft = vars(Draft(revision, base, kept, max(0.0, seconds), _now(), tab, sequence))
            whose = {"picture": key, "task": task, "author": author}
            self._add("drafts", {**whose, **draft, "content": json.dumps(kept)}, "INSERT OR REPLACE")
        return revision, shelves

    def drafted(self, author: str) -> set[tuple[str, str]]:
        """Return the pictures and tasks for which a person has a draft."""
        return {(row[0], row[1]) for row in self._rows("SELECT picture, task FROM drafts WHERE author = ?", author)}

    def draft(self, key: str, task: str, author: str) -> Draft | None:
        return next(iter(self.drafts(key, task, author)), None)

    def drafts(self, key: str, task: str, author: str, table: str = "drafts") -> list[Draft]:
        """Return a person's drafts, oldest first; ``table`` is ``"drafts"`` or ``"shelved"``."""

        def read(row: sqlite3.Row) -> Draft:
            return read_record(Draft, {**row, "content": check_content(task, json_value(row["content"]))}, "A draft")

        return self._checked(read, f"SELECT * FROM {table} WHERE {_OWN} ORDER BY rowid", key, task, author)

    def put_aside(self, key: str, task: str, author: str, *, stays: bool = False) -> None:
        """Move a draft to the table ``shelved``; if ``stays`` is true, copy the draft instead."""
        with self._writing():
            self._shelve(key, task, author)
            if not stays:
                self._db.execute(f"DELETE FROM drafts WHERE {_OWN}", (key, task, author))

    def _shelve(self, key: str, task: str, author: str) -> None:
        self._db.execute(f"INSERT INTO shelved SELECT * FROM drafts WHERE {_OWN}", (key, task, author))

    # texts from elsewhere, and judgements

    def put_texts(self, source: str, texts: Iterable[tuple[str, str]]) -> None:
        """Save texts from another source for comparison, as pairs of a picture's key and a text."""
        rows = [(key, source, check_content("caption", {"text": text})["text"]) for key, text in texts]
        with self._writing():
            self._db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)

    def texts(self, key: str) -> dict[str, str]:
        """Return the texts of a picture by source."""
        rows = self._rows("SELECT source, text FROM texts WHERE picture = ? ORDER BY source", key)
        return {row[0]: row[1] for row in rows}

    def put_judgement(self, key: str, row: dict[str, Any]) -> None:
        """Save a comparison; if a person compares a pair again, only the last comparison counts."""
        with self._writing():
            self.known(key)
            row = vars(read_record(Judgement, {"made": _now(), **row}, "A comparison"))
            self._add("judgements", {"picture": key, **row, "answers": json.dumps(row["answers"])})

    def judgements(self) -> list[dict[str, Any]]:
        """Return each person's last comparison of every pair, oldest first."""

        def read(row: sqlite3.Row) -> dict[str, Any]:
            values = {**row, "swapped": bool(row["swapped"]), "answers": json_value(row["answers"])}
            return {"picture": row["picture"], **vars(read_record(Judgement, values, "A comparison"))}

        last = "SELECT MAX(rowid) FROM judgements GROUP BY picture, author, first, second"
        return self._checked(read, f"SELECT * FROM judgements WHERE rowid IN ({last}) ORDER BY rowid")

    # the database

    def _add(self, table: str, row: dict[str, Any], how: str = "INSERT") -> None:
        self._db.execute(f"{how} INTO {table} VALUES ({', '.join(f':{name}' for name in row)})", row)

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._db.lock, self._disk_errors():
            return self._db.execute(query, values).fetchall()

    def _checked(self, read: Callable[[sqlite3.Row], T], query: str, *values: Any) -> list[T]:
        """Return the rows of a query, parsed by ``read``; raise ``DataError`` if a row is invalid."""
        rows = self._rows(query, *values)
        try:
            return [read(row) for row in rows]
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{self.path} has an invalid row: {str(error).rstrip('.')}. Use an earlier copy of the file."
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._db.lock, self._disk_errors():
            check_single(self.path)  # a link may be new
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"Annotations cannot be saved in {self.path}: {reason(error)}. Free some space, or give another file."
            ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _picture(row: sqlite3.Row) -> Picture:
    return read_record(Picture, {**row}, "A picture")


def _version(row: sqlite3.Row) -> Version:
    content = check_content(row["task"], json_value(row["content"]))
    return read_record(Version, {**row, "content": content}, "A version")
