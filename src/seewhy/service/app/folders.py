"""Detect what changes in the folders of the data while the page is open."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...encoders.stream import file_digest
from ...explanation.result import Result
from ...language.annotation.labels import KEY
from ...pictures.sources import is_picture
from ...storage.output import is_written
from .rows import READ, Rows, name_of
from .tiles import file_key

SECONDS = 3.0
"""Minimum seconds between two checks of the folders."""
COMPARING_SECONDS = 0.05
"""Seconds of a check in which files are compared; the next check goes on with the next file."""
FRESH_NS = 2 * 10**9
"""Age in ns below which a folder's modification time may miss a change, so that the folder is listed again."""


@dataclass(frozen=True)
class Listing:
    """The pictures and subfolders of a folder at its modification time."""

    changed: int
    pictures: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class News(Result):
    """What has changed since the page was started.

    Attributes:
        new, gone, changed: number of pictures.
        classes: new class folders.
        tables: tables of the data that have changed.
    """

    computed = ("note",)

    new: int = 0
    classes: tuple[str, ...] = ()
    gone: int = 0
    changed: int = 0
    tables: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """A sentence for the page; ``None`` if nothing has changed."""
        what = {"new picture": self.new, "new class": len(self.classes), "missing picture": self.gone}
        what |= {"changed picture": self.changed, "changed table": len(self.tables)}
        parts = [
            f"{n:,} {name}{'' if n == 1 else 'es' if name.endswith('s') else 's'}" for name, n in what.items() if n
        ]
        if not parts:
            return None
        return (
            f"The data have changed since the page was started: {', '.join(parts)}. Start the page again to see the "
            "data as they are now. All decisions are kept."
        )


class Folders:
    """The folders and tables that pictures come from; a folder is listed again only if it has changed."""

    def __init__(self, rows: Rows, sources: Sequence[Path] = ()) -> None:
        """``sources`` are the folder or table of the labelled pictures, and that of the unlabelled ones."""
        self._rows = rows
        places = [os.path.abspath(place) for place in sources]
        self._trees = [f"{place}{os.sep}" for place in places if os.path.isdir(place)]
        self._tables = {place: file_key(place) for place in places if os.path.isfile(place)}
        self._classes_in = self._trees[0] if places and os.path.isdir(places[0]) else None
        """The folder with a folder per class, if the data are such a folder."""
        self._known: dict[str, set[str]] = defaultdict(set)
        for sample in rows.items:
            if sample.pixels is None:
                folder, name = os.path.split(os.path.abspath(sample.image))
                self._known[folder].add(name)
        self._first = self._now = self._listings({})
        self._place = 0
        self._compared: dict[int, tuple[bytes, bool]] = {}
        """By picture whose file is another one: the key of the file, and whether its content differs."""
        self._turn = threading.Lock()
        self._next = 0.0
        self._news = News()

    def news(self) -> News:
        """Return what has changed, after a check if none was made lately or is being made."""
        if time.monotonic() >= self._next and self._turn.acquire(blocking=False):
            try:
                self._now = self._listings(self._now)
                self._compare()
                self._news = self._counted()
                self._next = time.monotonic() + SECONDS
            finally:
                self._turn.release()
        return self._news

    def _listings(self, before: Mapping[str, Listing]) -> dict[str, Listing]:
        """List the folders of the pictures, and all folders below those of ``sources``."""
        listings: dict[str, Listing] = {}
        visited: set[tuple[int, int]] = set()
        pending = [*self._known, *(tree.rstrip(os.sep) or os.sep for tree in self._trees)]
        while pending:
            folder = pending.pop()
            changed, place = _changed(folder)
            if folder in listings or (place in visited and folder not in self._known):
                continue  # links may lead in a circle
            visited.add(place)
            listing = before.get(folder)
            if listing is None or listing.changed != changed or changed < 0:
                listing = _listing(folder, changed, self._known.get(folder, ()))
            listings[folder] = listing
            if self._in_tree(folder):
                pending += [os.path.join(folder, name) for name in listing.folders]
        return listings

    def _in_tree(self, folder: str) -> bool:
        return any(f"{folder}{os.sep}".startswith(tree) for tree in self._trees)

    def _counted(self) -> News:
        first, now, none = self._first, self._now, Listing(0)
        has_sources = bool(self._trees or self._tables)
        grows = (f for f in now if f"{f}{os.sep}" != self._classes_in and (self._in_tree(f) or not has_sources))
        new = sum(len(now[f].pictures - first.get(f, none).pictures) for f in grows)
        gone = sum(len((names & first[f].pictures) - now[f].pictures) for f, names in self._known.items())
        changed = sum(differs for _, differs in self._compared.values())
        tables = (name_of(place) for place, key in self._tables.items() if file_key(place) != key)
        classes = self._classes(now) - self._classes(first)
        return News(new, tuple(map(name_of, sorted(classes))), gone, changed, tuple(tables))

    def _classes(self, listings: Mapping[str, Listing]) -> set[str]:
        """Return the class folders that have pictures."""
        if (root := self._classes_in) is None:
            return set()
        full = (f for f, one in listings.items() if one.pictures and f.startswith(root))
        return {f.removeprefix(root).partition(os.sep)[0] for f in full}

    def _compare(self) -> None:
        """Compare the files of some pictures with what they were when they were predicted."""
        rows, until = self._rows, time.monotonic() + COMPARING_SECONDS
        n = rows.n_done
        for _ in range(n):
            i = self._place = (self._place + 1) % n
            key, before = file_key(rows.items[i].image), rows.tile_keys([i])[0]
            if not key or key == before or rows.state[i] != READ:
                self._compared.pop(i, None)
            elif self._compared.get(i, (b"",))[0] != key:
                digest = file_digest(rows.items[i].image) or ""
                self._compared[i] = key, digest[:KEY].encode() != rows.key[i]
            if time.monotonic() > until:
                return


def _changed(folder: str) -> tuple[int, tuple[int, int]]:
    """Return a folder's modification time, −1 if it is so recent that it may miss a change, and where the folder is."""
    try:
        facts = os.stat(folder)
    except OSError:
        return 0, (0, 0)
    changed = facts.st_mtime_ns
    return changed if time.time_ns() - changed > FRESH_NS else -1, (facts.st_dev, facts.st_ino)


def _listing(folder: str, changed: int, known: Collection[str]) -> Listing:
    pictures, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".")
                # A link to itself makes is_dir() raise; isdir() calls it no folder.
                if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                    folders += [entry.name] * (not hidden and not is_written(entry.path))
                elif entry.name in known or (not hidden and is_picture(entry.name, entry.path)):
                    pictures.append(entry.name)
    except OSError:
        return Listing(changed)
    return Listing(changed, frozenset(pictures), tuple(folders))
