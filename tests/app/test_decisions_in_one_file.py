"""The one file that the docs name holds every decision: while the server runs, after each way to stop it, in a copy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from typer.testing import CliRunner

from seewhy import cli
from seewhy.language.annotation.labels import FILE, open_decisions
from seewhy.language.annotation.records import Picture
from seewhy.language.annotation.store import ANNOTATIONS, AnnotationStore
from seewhy.storage import database
from seewhy.storage.database import connect
from seewhy.storage.features import FeatureStore
from tiny import class_folders

pytestmark = pytest.mark.skipif(os.name != "posix", reason="this system has no such signals")
Start = Callable[..., tuple[subprocess.Popen[str], str]]
N = 12
SCRIPT = """
from pathlib import Path
from seewhy.storage.database import DatabaseKind, connect
def opened():
    global db
    db = connect(Path("f.sqlite"), DatabaseKind("numbers", 5, "CREATE TABLE IF NOT EXISTS numbers (n INTEGER);"))
    db.circle = [db]
def put(i):
    with db.lock, db:
        db.execute("INSERT INTO numbers VALUES (?)", (i,))
opened()
put(0)
"""
WORKER = """
from multiprocessing import get_context
db.close()
def work():
    opened()
    put(1)
process = get_context("fork").Process(target=work)
process.start()
process.join()
"""
THREAD = """
from threading import Thread
Thread(target=lambda: [*map(put, range(10**6))], daemon=True).start()
"""


def _heed_signals() -> None:
    """A runner may have been started with SIGHUP ignored, which its processes would inherit."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def start(command: list[str], tmp_path: Path) -> Iterator[Start]:
    """Starts the real command in a cache of its own; gives it and its address."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        own = os.environ | {"SEEWHY_CACHE": str(tmp_path / "cache")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _heed_signals}
        server = subprocess.Popen([*command, *arguments, "--port", "0"], text=True, env=own, **pipes)  # type: ignore[call-overload]
        started.append(server)
        assert server.stdout is not None
        return server, server.stdout.readline().split(" at ")[1].split()[0]

    yield begin
    for server in started:
        server.kill()
        server.communicate()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", N // 3)


def ask(address: str, **body: Any) -> Any:
    data = json.dumps(body).encode() if body else None
    with urlopen(Request(address, data, {"content-type": "application/json"}), timeout=60) as answer:
        return json.load(answer)


def decided(file: Path, elsewhere: Path) -> int:
    """How many decisions a copy of this one file has, opened in another folder."""
    elsewhere.mkdir()
    shutil.copy(file, elsewhere / file.name)
    with closing(open_decisions(elsewhere, ()).store) as store:
        return len(store.histories())


def logs(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*-wal") if path.stat().st_size]


def test_twelve_decisions_and_each_signal(start: Start, photos: Path, tmp_path: Path) -> None:
    """One server after another on one folder; killed or stopped, the file alone has all that were acknowledged."""
    folder, n = tmp_path / "decided", 0
    how = ["--labels", "moss,rust,sky", "--data", str(photos), "--decisions", str(folder), "--quiet"]
    for i, name in enumerate(["SIGKILL", "SIGTERM"]):
        server, address = start("app", *how)
        while (listed := ask(f"{address}rows?count={N}"))["done"] < N:
            time.sleep(0.05)
        assert sum(row["decision"] != "undecided" for row in listed["rows"]) == n
        for row in listed["rows"][6 * i : 6 * i + 6]:
            ask(f"{address}decide/{row['key']}", author="Ann", decision="kept", given=row["label"], base=0)
            n += 1
        assert decided(folder / FILE, tmp_path / f"{name} before") == n
        server.send_signal(signal.Signals[name])
        _, complaints = server.communicate(timeout=60)
        assert decided(folder / FILE, tmp_path / name) == n
        if name != "SIGKILL":
            assert ([*folder.iterdir()], logs(tmp_path / "cache")) == ([folder / FILE], [])
            assert "Traceback" not in complaints
    assert n == N


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_annotations_and_the_copy_of_a_running_server(name: str, start: Start, photos: Path, tmp_path: Path) -> None:
    file, copy = tmp_path / "texts.sqlite", tmp_path / "copy.sqlite"
    server, address = start("app", "--data", str(photos), "--annotate", str(file), "--quiet")
    key = ask(f"{address}?format=json")["pictures"][0]["key"]
    ask(f"{address}save/{key}/caption", author="Ann", content={"text": "A wall"}, base=0)
    done = CliRunner().invoke(cli.app, ["app", "--annotate", str(file), "--backup", str(copy)])
    assert (done.exit_code, done.stdout) == (0, f"{copy}: a copy of {file}\n")
    assert sorted(p.name for p in tmp_path.glob("*.sqlite*")) == ["copy.sqlite", "texts.sqlite"]
    ask(f"{address}save/{key}/caption", author="Bo", content={"text": "A mossy wall"}, base=1)
    server.send_signal(signal.Signals[name])
    assert "Traceback" not in server.communicate(timeout=60)[1]
    for path, text in ((copy, "A wall"), (file, "A mossy wall")):
        with closing(AnnotationStore(path)) as store:
            latest = store.latest(key, "caption")
            assert latest is not None
            assert latest.content["text"] == text


def backup(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["app", "--backup", *map(str, arguments)])
    return done.exit_code, str(done.exception)


def test_a_backup_replaces_only_a_copy(tmp_path: Path) -> None:
    folder, copy = tmp_path / "decided", tmp_path / "copy.sqlite"
    with closing(open_decisions(folder, ()).store) as store:
        store.add_pictures([Picture("a" * 16, "a" * 64, "a.png", 1, 1)])
    for _ in range(2):  # the second replaces the first, which nobody has changed
        assert backup(copy, "--decisions", folder)[0] == 0
    with closing(AnnotationStore(copy)) as store:
        store.add_pictures([Picture("b" * 16, "b" * 64, "b.png", 1, 1)])
        assert "or it has changed since" in backup(copy, "--decisions", folder)[1]
        (tmp_path / "copy.sqlite-journal").touch()
        assert (
            backup(copy, "--decisions", folder, "--force")[1]
            == f"{copy} is a database that is in use. Choose another name."
        )
        (tmp_path / "copy.sqlite-journal").unlink()
    assert backup(copy, "--decisions", folder, "--force")[0] == 0
    with closing(AnnotationStore(copy)) as store:
        assert [p.name for p in store.pictures()] == ["a.png"]


@pytest.mark.parametrize("content", [b"", b"notes", b"SQLite format 3\0" + bytes(84)])
def test_a_backup_never_replaces_what_somebody_else_wrote(content: bytes, tmp_path: Path) -> None:
    open_decisions(tmp_path / "decided", ()).store.close()
    (tmp_path / "notes").write_bytes(content)
    for more in ([], ["--force"]):
        code, message = backup(tmp_path / "notes", "--decisions", tmp_path / "decided", *more)
        assert code != 0
        assert "Choose another name" in message
    own = tmp_path / "decided" / FILE
    (tmp_path / "second").symlink_to(own)
    whole = own.read_bytes()
    for name in (own, tmp_path / "second"):
        assert "is also an input" in backup(name, "--decisions", tmp_path / "decided", "--force")[1]
    (tmp_path / "third").hardlink_to(own)
    assert "is a hard link" in backup(tmp_path / "third", "--decisions", tmp_path / "decided", "--force")[1]
    assert (own.read_bytes(), (tmp_path / "notes").read_bytes()) == (whole, content)


def test_a_backup_needs_one_database_that_exists(tmp_path: Path) -> None:
    out = tmp_path / "copy.sqlite"
    needs = f"--backup {out} requires either --decisions FOLDER or --annotate FILE."
    assert backup(out)[1] == needs
    assert backup(out, "--decisions", tmp_path, "--annotate", tmp_path / "a")[1] == needs
    assert backup(out, "--annotate", tmp_path / "a")[1].startswith(f"{tmp_path / 'a'} does not exist")
    assert backup(out, "--decisions", tmp_path)[1].startswith(f"{tmp_path / FILE} does not exist")
    assert not [*tmp_path.iterdir()]


def test_the_log_of_an_earlier_version_ends_with_its_last_reader(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with closing(connect(path, replace(ANNOTATIONS, journal="WAL"))) as old:
        old.execute("INSERT INTO pictures VALUES ('k', 'd', 'old.png', 1, 1)")
        old.commit()
        with closing(AnnotationStore(path)) as store:
            store.add_pictures([Picture("a" * 16, "a" * 64, "a.png", 1, 1)])
    with closing(AnnotationStore(path)) as store:
        store.add_pictures([Picture("b" * 16, "b" * 64, "b.png", 1, 1)])
        assert [one.name for one in tmp_path.iterdir()] == [FILE]


ENDS = {
    "the end": "",
    "an error": "raise ValueError",
    "exit": "raise SystemExit(3)",
    "a thread that writes": THREAD,
    "a worker": WORKER,
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_process_leaves_no_log(end: str, tmp_path: Path) -> None:
    """Also in a script that closes nothing, with the connection in a circle of references."""
    code = "\n".join((SCRIPT, ENDS[end]))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert [one.name for one in tmp_path.glob("*.sqlite*")] == ["f.sqlite"]
    assert done.stderr == "" or "ValueError" in done.stderr
    with closing(sqlite3.connect(tmp_path / "f.sqlite")) as db:
        assert db.execute("SELECT max(n) FROM numbers").fetchone()[0] >= (end == "a worker")


def test_a_fork_leaves_the_databases_of_its_parent_open(tmp_path: Path) -> None:
    with closing(FeatureStore(tmp_path / "f.sqlite")) as store:
        n_open = len(database._open)
        if not (child := os.fork()):
            database._close_all()
            os._exit(n_open - len(database._open))
        assert os.waitpid(child, 0)[1] == 0
        store.put([(b"k", torch.zeros(2), None)])
        assert len(store) == 1
