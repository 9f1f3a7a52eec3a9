"""A look at a database that this process has open must not take its locks: then two processes write at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from seewhy.errors import ForeignFileError
from seewhy.language.annotation.store import ANNOTATIONS as NOTES
from seewhy.language.writers import ANSWERS
from seewhy.retrieval.catalogue import CATALOGUE
from seewhy.storage.database import DatabaseKind, check, connect
from seewhy.storage.features import STORE

OTHER = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
else:
    print("writes at the same time")
"""


def other_process(path: Path) -> str:
    return subprocess.run([sys.executable, "-c", OTHER, str(path)], capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("kind", [STORE, NOTES, ANSWERS, CATALOGUE], ids=lambda kind: kind.what)
def test_a_second_look_at_an_open_database_leaves_its_lock(kind: DatabaseKind, tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    with closing(connect(path, kind)) as db:
        assert other_process(path) == "writes at the same time"
        db.execute("BEGIN IMMEDIATE")
        assert other_process(path) == "database is locked"
        check(path, kind)
        assert other_process(path) == "database is locked"
        (tmp_path / "link.sqlite").symlink_to(path)
        with closing(connect(tmp_path / "link.sqlite", kind)):
            assert other_process(path) == "database is locked"
        with pytest.raises(ForeignFileError):
            check(path, NOTES if kind is STORE else STORE)
        assert other_process(path) == "database is locked"
        db.execute("COMMIT")
        assert other_process(path) == "writes at the same time"


def test_somebody_elses_file_under_a_name_that_was_a_database_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    connect(path, STORE).close()
    held = path.open("r+b")  # the same number of the file system, other content
    held.write(b"notes of a person's own" * 400)
    held.close()
    with pytest.raises(ForeignFileError):
        check(path, STORE)
    path.unlink()
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ForeignFileError):
        connect(path, STORE)
