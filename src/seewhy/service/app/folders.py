"""Detect pictures that are added to or removed from the folders of the data while the page is open."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable

from ...pictures.sources import SUFFIXES

SECONDS = 3.0
"""Seconds between two checks of the folders."""


class Folders:
    """The folders of the pictures; a folder is listed again only if its modification time has changed."""

    def __init__(self, files: Iterable[str]) -> None:
        self._names: dict[str, set[str]] = defaultdict(set)
        for file in files:
            folder, name = os.path.split(os.path.abspath(file))
            self._names[folder].add(name)
        self._first = {folder: (_changed(folder), _pictures(folder)) for folder in self._names}
        self._seen = {folder: (changed, 0, 0) for folder, (changed, _) in self._first.items()}
        self._next = 0.0

    def said(self) -> str:
        """Return a sentence about added and removed pictures; empty if there are none."""
        if time.monotonic() >= self._next:
            self._look()
            self._next = time.monotonic() + SECONDS
        gone, new = (sum(one[k] for one in self._seen.values()) for k in (1, 2))
        if not gone and not new:
            return ""
        told = [f"{n:,} {'is' if n == 1 else 'are'} {what}" for n, what in ((gone, "gone"), (new, "new")) if n]
        return (
            f"The pictures have changed since the page was started: {' and '.join(told)}. "
            "Start the page again to see the data as they are now."
        )

    def _look(self) -> None:
        for folder, names in self._names.items():
            changed = _changed(folder)
            if changed != self._seen[folder][0]:
                now = _pictures(folder)
                first = self._first[folder][1]
                self._seen[folder] = (changed, len((names & first) - now), len(now - first))


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _pictures(folder: str) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in SUFFIXES}
    except OSError:
        return set()
