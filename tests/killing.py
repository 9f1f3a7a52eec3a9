"""A command that is killed at a moment that is seen, not guessed: when so many rows, lines or files are there.

Commands run in processes of their own, forked off one that has imported what they need: they are in the middle of
their work within a tenth of a second, and a whole room of kills costs less than one cold start did.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch",
        "timm",
        "torchvision",
        "PIL.Image",
        "seewhy.cli",
        "seewhy.cli.fit",
        "seewhy.training.loop",
        "seewhy.classifiers.saving",
    ]
)


def _run(arguments: list[str], where: str, said: str, complained: str) -> None:
    """The real entry point, with its streams in files, and trainings kept as often as writing allows."""
    os.chdir(where)
    for number, place in ((1, said), (2, complained)):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["seewhy", *arguments]
    from seewhy.cli import main
    from seewhy.training import loop

    loop.SECONDS = 0.0
    main()


class Killing:
    """Runs ``seewhy ARGUMENTS`` in a folder, to the end or to a moment.

    Args:
        where: the folder.
    """

    def __init__(self, where: Path) -> None:
        self.where = where
        self.said, self.complained = where / ".said", where / ".complained"

    def _start(self, arguments: Sequence[object]) -> multiprocessing.process.BaseProcess:
        names = [str(self.where), str(self.said), str(self.complained)]
        process = CONTEXT.Process(target=_run, args=([*map(str, arguments)], *names))
        self.said.unlink(missing_ok=True)
        process.start()
        return process

    def finish(self, *arguments: object) -> str:
        """What it says when nothing stops it."""
        process = self._start(arguments)
        process.join(300)
        assert process.exitcode == 0, self.complained.read_text("utf-8")
        return self.said.read_text("utf-8")

    def kill(self, moment: Callable[[], bool], *arguments: object) -> None:
        """Kill it as soon as the moment is there, which must be before its end."""
        process, begun = self._start(arguments), time.monotonic()
        while process.is_alive() and not moment() and time.monotonic() - begun < 120:
            time.sleep(0.001)
        was_running = process.is_alive()
        process.kill()
        process.join()
        assert was_running, f"It ended before that moment: {self.complained.read_text('utf-8')}"
        assert moment(), "The moment never came."

    def kill_at(self, progress: Callable[[], int], marks: Sequence[int], *arguments: object) -> None:
        """Kill it again and again: each time when it has come further than the mark; nothing done is done again."""
        for mark in marks:
            before = progress()
            assert before < mark, f"{before} were done in a run that was killed before {mark}"
            self.kill(lambda mark=mark: progress() >= mark, *arguments)  # type: ignore[misc]


def rows(path: Path, table: str) -> Callable[[], int]:
    """How many rows a database has."""

    def count() -> int:
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0

    return count


def lines(path: Path) -> Callable[[], int]:
    """How many whole lines a file has."""
    return lambda: path.read_bytes().count(b"\n") if path.exists() else 0


def writes(path: Path) -> Callable[[], int]:
    """How often a file was seen to be written anew, from the first look on."""
    seen: set[int] = set()

    def count() -> int:
        if path.exists():
            seen.add(path.stat().st_mtime_ns)
        return len(seen)

    return count


def content(folder: Path) -> dict[str, bytes]:
    """Every file that is not hidden, by its name in the folder."""
    files = (p for p in folder.rglob("*") if p.is_file())
    found = {str(p.relative_to(folder)): p.read_bytes() for p in files}
    return {name: data for name, data in found.items() if not any(part[0] == "." for part in Path(name).parts)}
