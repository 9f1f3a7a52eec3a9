"""What a killed run left beside its output is deleted by the next run of that output, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from seewhy.storage.folders import new_folder, write_together
from seewhy.storage.output import WRITTEN

KILLED = """
import os, sys
from pathlib import Path
from seewhy.storage import folders
folder = Path(sys.argv[1])
if sys.argv[2] == "renaming":
    rename = os.rename
    os.rename = lambda a, b: (rename(a, b), os.kill(os.getpid(), 9))
    with folders.new_folder(folder, lambda _: True) as fresh:
        (fresh / "a").write_text("2")
elif sys.argv[2] == "making":
    with folders.new_folder(folder) as fresh:
        (fresh / "a").write_text("2")
        os.kill(os.getpid(), 9)
else:
    os.replace = lambda a, b: os.kill(os.getpid(), 9)
    folders.write_together(folder, {"a": "2"})
"""


def kill(folder: Path, when: str) -> None:
    """A run that is killed, more than a second ago."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), when])
    assert done.returncode == -9
    for mark in folder.parent.rglob(f".*.part/{WRITTEN}"):
        os.utime(mark, (1e9, 1e9))


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_part_of_a_killed_run_is_deleted(tmp_path: Path) -> None:
    kill(tmp_path / "out", "making")
    assert any(name.startswith(".out.") for name in os.listdir(tmp_path))
    with new_folder(tmp_path / "out") as fresh:
        (fresh / "a").write_text("3")
    assert names(tmp_path) == ["out/a"]
    assert os.listdir(tmp_path) == ["out"]


def test_the_earlier_folder_is_put_back(tmp_path: Path) -> None:
    write_together(tmp_path / "out", {"a": "1"})
    kill(tmp_path / "out", "renaming")
    assert not (tmp_path / "out").exists()
    with new_folder(tmp_path / "out", lambda _: True) as fresh:
        assert (tmp_path / "out" / "a").read_text() == "1"
        (fresh / "a").write_text("3")
    assert names(tmp_path) == ["out/a"]
    assert (tmp_path / "out" / "a").read_text() == "3"


def test_files_that_were_staged_are_deleted(tmp_path: Path) -> None:
    write_together(tmp_path / "out", {"a": "1"})
    kill(tmp_path / "out", "staging")
    assert len(names(tmp_path)) > 1
    write_together(tmp_path / "out", {"a": "3"})
    assert names(tmp_path) == ["out/a"]
    assert (tmp_path / "out" / "a").read_text() == "3"


def test_what_runs_and_what_others_made_stays(tmp_path: Path) -> None:
    kill(tmp_path / "other", "making")
    (tmp_path / ".out.deadbeef.part").mkdir()
    (tmp_path / ".out.deadbeef.part" / "mine").write_text("mine")
    before = {*names(tmp_path)}
    with new_folder(tmp_path / "out") as running:
        (running / "a").write_text("1")
        os.utime(running.parent / WRITTEN, (1e9, 1e9))
        with new_folder(tmp_path / "out") as second:
            (second / "a").write_text("2")
        assert (running / "a").read_text() == "1"
        (tmp_path / "out" / "a").unlink()
        (tmp_path / "out").rmdir()
    assert {*names(tmp_path)} == {*before, "out/a"}
    assert (tmp_path / "out" / "a").read_text() == "1"
