"""Another package adds a verb: a function, its docstring and one entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VERB = '''
"""One file."""

from seewhy.cli.session import Session
from seewhy.cli.terminal import say


def count(session: Session, pictures: list[str], *, least: int = 1) -> None:
    """How many pictures there are.

    Args:
        pictures: Picture files and folders.
        least: Fewer than these are too few.
    """
    n = len(list(session.pictures(pictures)))
    say(f"{n} pictures" + (", too few" if n < least else ""))


count.examples = "seewhy count photos/"
'''


def test_a_verb_by_an_entry_point(tmp_path: Path) -> None:
    from tiny import class_folders

    class_folders(tmp_path / "photos", 2, ("moss", "rust"))
    (tmp_path / "counting.py").write_text(VERB)
    info = tmp_path / "counting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[seewhy.verbs]\ncount = counting:count\n")
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "seewhy", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    assert run("count", "photos", "--least", "9").strip() == "4 pictures, too few"
    help = run("count", "--help")
    assert "How many pictures there are." in help
    assert "Fewer than these are too few." in help
    assert "count" in run("--help")
