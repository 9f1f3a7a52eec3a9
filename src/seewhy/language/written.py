"""Answers of writers on disk: asked once, kept under prompt and model, so that a stopped run goes on for nothing."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from ..errors import DataError, ForeignFileError
from ..storage.cache import cache_dir
from ..storage.database import DatabaseKind, connect, memory

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL
) WITHOUT ROWID;
"""
ANSWERS = DatabaseKind("a file of writers' answers", 0x53577772, _SCHEMA, earlier=(_SCHEMA,))


class Written:
    """A database of answers; several processes may use it at once.

    Args:
        path: the file; left out, ``written.sqlite`` in the cache folder; ``":memory:"`` keeps nothing.

    Raises:
        DataError: the file cannot be opened, or is none.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = str(path) if path else str(cache_dir() / "written.sqlite")
        self._lock = threading.Lock()
        try:
            self._db = memory(ANSWERS) if self.path == ":memory:" else connect(Path(self.path), ANSWERS, timeout=60)
        except ForeignFileError as error:
            raise self._trouble("it is damaged, or not of SeeWhy's") from error
        except (OSError, sqlite3.Error) as error:
            raise self._trouble(error) from error

    def get(self, key: str) -> str | None:
        """What was answered, if anything was."""
        try:
            with self._lock:
                row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        return None if row is None else str(row[0])

    def put(self, key: str, model: str, prompt: str, answer: str) -> None:
        """Keep an answer; it is on disk when this returns."""
        row = (key, model, *(text.encode("utf-8", "replace").decode() for text in (prompt, answer)))
        try:
            with self._lock, self._db:
                self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _trouble(self, error: Exception | str) -> DataError:
        return DataError(
            f"Answers cannot be kept in {self.path}: {error}. A place that can be written to was expected. "
            "Free some space, or set SEEWHY_CACHE to another folder."
        )
