"""A database of somebody else's stays as it is, to the byte; SeeWhy's own, of earlier versions too, are opened."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seewhy.errors import DataError, ForeignFileError
from seewhy.language.annotation.store import ANNOTATIONS, AnnotationStore
from seewhy.language.writers import ANSWERS, Written
from seewhy.retrieval.catalogue import CATALOGUE, FILE, Catalogue
from seewhy.storage import database as database_of
from seewhy.storage.database import DatabaseKind
from seewhy.storage.features import STORE, FeatureStore


def catalogue(path: Path) -> Catalogue:
    """In a folder of its own, under the one name that it has."""
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    for beside in path.parent.glob(f"{path.name}*"):
        beside.rename(folder / beside.name.replace(path.name, FILE))
    return Catalogue(folder)


OPENED: dict[str, tuple[Callable[[Path], object], DatabaseKind]] = {
    "store": (FeatureStore, STORE),
    "annotations": (AnnotationStore, ANNOTATIONS),
    "answers": (Written, ANSWERS),
    "catalogue": (catalogue, CATALOGUE),
}


@pytest.fixture(params=OPENED)
def opened(request: pytest.FixtureRequest) -> tuple[Callable[[Path], object], DatabaseKind]:
    return OPENED[request.param]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def database(path: Path, script: str, *, wal: bool = False) -> Path:
    db = sqlite3.connect(path)
    if wal:
        db.execute("PRAGMA journal_mode=WAL")
    db.executescript(script)
    db.close()
    return path


MINE = "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine');"
FOREIGN: dict[str, Callable[[Path], object]] = {
    "text": lambda p: p.write_text("one line"),
    "empty": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(b"SQLite format 3\0"),
    "database": lambda p: database(p, MINE),
    "write-ahead": lambda p: database(p, MINE, wal=True),
    "numbered": lambda p: database(p, MINE + "PRAGMA application_id = 7;"),
    "more": lambda p: database(p, MINE + "".join(kind.schema for _, kind in OPENED.values())),
    "other columns": lambda p: database(p, "CREATE TABLE looks (key BLOB); CREATE TABLE texts (key BLOB);"),
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("linked", ["", "symlink", "hardlink"])
def test_somebody_else_s_file_is_not_touched(
    opened: tuple[Callable[[Path], object], DatabaseKind], foreign: str, linked: str, tmp_path: Path
) -> None:
    there, path = tmp_path / "theirs" / "a.sqlite", tmp_path / "ours" / "a.sqlite"
    there.parent.mkdir()
    path.parent.mkdir()
    FOREIGN[foreign](there)
    before = contents(there.parent)
    if linked == "symlink":
        path.symlink_to(there)
    elif linked == "hardlink":
        path.hardlink_to(there)
    else:
        shutil.copy2(there, path)
        before = {**before, "copy": contents(path.parent)["a.sqlite"]}
    with pytest.raises(DataError, match=r"exists and is not|damaged, or"):
        opened[0](path)
    after = contents(there.parent)
    if not linked:
        after["copy"] = next(iter(contents(path.parent).values()))
    assert after == before


@pytest.mark.parametrize("closed", [True, False])
def test_somebody_else_s_file_with_the_inode_of_one_of_ours_is_not_touched(closed: bool, tmp_path: Path) -> None:
    """As when ours was deleted, and the file system used its inode again."""
    theirs = database(tmp_path / "theirs.sqlite", MINE, wal=True).read_bytes()
    path = tmp_path / "a.sqlite"
    ours = FeatureStore(path)
    if closed:
        ours.close()
    del ours
    path.write_bytes(theirs)
    before = contents(tmp_path)
    with pytest.raises(ForeignFileError, match="exists and is not"):
        FeatureStore(path)
    assert contents(tmp_path) == before


def test_a_database_that_is_open_is_read_by_sqlite_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    first, second = FeatureStore(path), FeatureStore(path)
    read: list[Path] = []
    number = database_of._number

    def read_by_python(path: Path) -> int:
        read.append(path)
        return number(path)

    monkeypatch.setattr(database_of, "_number", read_by_python)
    first.close()
    FeatureStore(path).close()
    assert read == [], "one connection is still open"
    second.close()
    FeatureStore(path).close()
    assert read == [path]


ACTING = (
    "ALTER TABLE {0} ADD COLUMN more BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL",
    "ALTER TABLE {0} RENAME TO old; CREATE TABLE {1} AS SELECT * FROM old",
    "ALTER TABLE {0} ADD COLUMN more TEXT CHECK (length(hex(zeroblob(900000000))) > 0)",
    "CREATE INDEX evil ON {0} (length(zeroblob(9)))",
    "CREATE TRIGGER evil AFTER INSERT ON {0} BEGIN DELETE FROM {0}; END",
    "CREATE VIEW evil AS SELECT * FROM {0}",
    "CREATE VIRTUAL TABLE evil USING fts5(x)",
)


@pytest.mark.parametrize("statement", ACTING)
def test_a_database_that_acts_or_computes_is_refused(
    opened: tuple[Callable[[Path], object], DatabaseKind], statement: str, tmp_path: Path
) -> None:
    """A column of an index that its schema computed gave 0.9 GB per picture from a file of 40 kB."""
    make, kind = opened
    path, table = tmp_path / "a.sqlite", kind.schema.split()[5]
    database(path, f"{kind.schema} PRAGMA application_id = {kind.number}; {statement.format(table, table.upper())};")
    with pytest.raises(DataError, match="is not as SeeWhy creates it"):
        make(path)


def test_a_plain_table_of_another_name_and_other_blanks_are_no_reason_to_refuse(
    opened: tuple[Callable[[Path], object], DatabaseKind], tmp_path: Path
) -> None:
    make, kind = opened
    path, schema = tmp_path / "a.sqlite", kind.schema.replace("\n", "\n  ")
    database(path, f"{schema} PRAGMA application_id = {kind.number}; CREATE TABLE old (x); CREATE INDEX i ON old (x);")
    make(path)


def test_a_database_in_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, vector = b"k" * 32, torch.ones(4)
    path = tmp_path / "a ?#.sqlite"
    store = FeatureStore(path)
    store.put_texts([(key, vector)])
    store.close()
    before = contents(tmp_path)
    monkeypatch.setattr(database_of.os, "access", lambda *_: False)
    store = FeatureStore(path)
    assert store.get_texts([key])[key].tolist() == [1, 1, 1, 1]
    assert contents(tmp_path) == before, "no log beside it"
    store.put_texts([(b"l" * 32, vector)])  # a warning: the run continues without it
    store.close()
    assert contents(tmp_path) == before


def test_a_database_of_another_kind_of_ours_is_not_mixed_up(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "a.sqlite").close()
    with pytest.raises(ForeignFileError) as caught:
        AnnotationStore(tmp_path / "a.sqlite")
    assert str(caught.value) == (
        f"{tmp_path / 'a.sqlite'} exists and is not a file of annotations of SeeWhy. Choose "
        "another name; the file was not changed."
    )


@pytest.fixture
def killed(tmp_path: Path) -> Callable[[str], Path]:
    """What a process leaves that is killed before its log was copied into the database."""

    def make(script: str) -> Path:
        path = tmp_path / "killed.sqlite"
        code = (
            "import os, sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.execute('PRAGMA journal_mode=WAL')\n"
            "db.executescript(sys.argv[2])\nos._exit(0)"
        )
        subprocess.run([sys.executable, "-c", code, str(path), script], check=True)
        assert Path(f"{path}-wal").stat().st_size
        return path

    return make


def test_a_killed_stranger_is_not_touched(
    opened: tuple[Callable[[Path], object], DatabaseKind], killed: Callable[[str], Path], tmp_path: Path
) -> None:
    path = killed(MINE)
    before = {k.partition("killed")[2]: v[0] for k, v in contents(tmp_path).items()}
    with pytest.raises(DataError):
        opened[0](path)
    after = {k.rpartition("killed")[2] if "killed" in k else k: v[0] for k, v in contents(tmp_path).items()}
    assert {v for k, v in before.items() if "shm" not in k} <= set(after.values())


def test_what_a_killed_writer_began_is_rolled_back_while_the_database_is_open_here(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    first = AnnotationStore(path)
    code = (
        "import os, sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1')\ndb.execute('BEGIN IMMEDIATE')\n"
        "db.execute('CREATE TABLE begun (text TEXT)')\n"
        "db.executemany('INSERT INTO begun VALUES (?)', [('x' * 900,)] * 2000)\nos._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert Path(f"{path}-journal").stat().st_size
    AnnotationStore(path).close()
    assert not Path(f"{path}-journal").exists()
    first.close()


@pytest.mark.parametrize("ending", ["-wal", "-journal", "-shm"])
def test_what_lies_where_sqlite_keeps_its_own_is_not_touched(tmp_path: Path, ending: str) -> None:
    beside = tmp_path / f"a.sqlite{ending}"
    beside.write_text("one line")
    with pytest.raises(ForeignFileError, match=r"SQLite needs that name for a\.sqlite"):
        FeatureStore(tmp_path / "a.sqlite")
    assert contents(tmp_path) == {beside.name: (b"one line", beside.stat().st_mtime_ns)}


def test_a_schema_that_is_no_text_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    AnnotationStore(path).close()
    whole = path.read_bytes()
    assert b"tablepicturespictures" in whole
    damaged = whole.replace(b"tablepicturespictures", b"table\xffictures\xffictures")
    path.write_bytes(damaged.replace(b"CREATE TABLE pictures", b"CREATE TABLX pictures"))
    with pytest.raises(DataError, match="it is damaged"):
        AnnotationStore(path)


def test_a_new_one_is_whole_from_the_first(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "new" / "a.sqlite")
    assert (tmp_path / "new" / "a.sqlite").read_bytes()[68:72] == STORE.number.to_bytes(4, "big")
    store.close()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.sqlite"]
    for place in (tmp_path, tmp_path / "new" / "a.sqlite" / "b"):
        with pytest.raises(DataError):
            FeatureStore(place)
