"""The folder that cards go to: whose name is whose, which files it wrote itself, what earlier runs noted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..encoders.stream import file_digest
from ..errors import DataError, ForeignFileError
from ..storage.folders import write_inside
from ..storage.journal import Journal
from ..storage.marks import Lines, Record
from ..storage.output import make_folder

RECORDS = "explanations.jsonl"
PROGRESS = ".explanations.progress.jsonl"
INDEX = "index.html"
NOTES = Lines((Record(("key", "record", "entry", "files")), Record(("key", "files"))))


class CardFolder:
    """A folder of cards with their index, their JSON lines and the notes of earlier runs.

    It writes over a file only where that file is its own: each is noted with its digest before it is written. A card's
    name is its picture's, or that with a part of a digest where another picture, or a file of the user, has the name.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = make_folder(path)
        self._real = os.path.realpath(path)
        self._owners = {"index": ""}
        self._own: dict[str, set[str]] = defaultdict(set)
        self._lines: dict[str, dict[str, Any]] = {}
        self._notes = Journal(path / PROGRESS, NOTES, force=force)
        for line in self._notes.rows:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                self._take(line)
        for taken in (INDEX, RECORDS):
            there = path / taken
            # Earlier versions did not note these two: there the folder's notes must do.
            own = self._still_own(taken) if self._own[taken] else bool(self._notes.rows)
            if os.path.lexists(there) and not own and not force:
                raise ForeignFileError(
                    f"{there} is there already, and not from seewhy explain. A folder without such a file was "
                    "expected. Give another with -o, or --force to write over it."
                )

    def _take(self, line: dict[str, Any]) -> None:
        """What an earlier run noted; names of files that are not of this folder are passed over."""
        if "entry" in line:
            self._owners.setdefault(Path(line["entry"]["href"]).stem.casefold(), line["record"]["image"])
        for file, digest in line["files"].items():
            if os.path.basename(file) != file:
                return
            self._own[file].add(digest)
        if "entry" in line:
            self._lines[line["key"]] = line

    def earlier(self, key: str) -> dict[str, Any] | None:
        """The line noted under this key, if its files are there as they were written."""
        line = self._lines.get(key)
        if line is None or not all(file_digest(self.path / f) == digest for f, digest in line["files"].items()):
            return None
        return line

    def is_own(self, file: str | Path) -> bool:
        """Whether a file lies in this folder and was written by it."""
        folder, name = os.path.split(file)
        return name in self._own and os.path.realpath(folder) == self._real and self._still_own(name)

    def _still_own(self, name: str) -> bool:
        return file_digest(self.path / name) in self._own[name]

    def place(self, picture: str, endings: Sequence[str]) -> str:
        """The name of a picture's card, without an ending: safe for any disk, and no other file's."""
        kept = (c if c.isalnum() or c in "-_. " else "_" for c in Path(picture).stem)
        stem = "".join(kept).strip(". ")[:80] or "picture"
        digest = hashlib.sha256(picture.encode("utf-8", "surrogatepass")).hexdigest()
        for name in (stem, f"{stem}-{digest[:8]}", f"{stem}-{digest}"):
            files = [f"{name}{ending}" for ending in endings]
            free = all(not os.path.lexists(self.path / f) or self._still_own(f) for f in files)
            if free and self._owners.setdefault(name.casefold(), picture) == picture:
                return name
        raise DataError(
            f"The folder {self.path} has other files wherever the card of {picture} could go. Give another with -o."
        )

    def keep(self, key: str, record: dict[str, Any], entry: dict[str, Any], files: Mapping[str, str | bytes]) -> None:
        """Note a card, then write its files; killed in between, the files are known as its own and made again."""
        self._write({"key": key, "record": record, "entry": entry}, files)

    def finish(self, lines: Sequence[dict[str, Any]], index: str) -> None:
        """Write the JSON lines and the index of this run."""
        records = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self._write({"key": ""}, {RECORDS: records, INDEX: index})

    def _write(self, line: dict[str, Any], files: Mapping[str, str | bytes]) -> None:
        data = {n: f.encode("utf-8", "backslashreplace") if isinstance(f, str) else f for n, f in files.items()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
        try:
            self._notes.add({**line, "files": digests})
        except OSError as error:
            raise DataError(
                f"The folder {self.path} cannot be written to: {error.strerror}. Give another with -o."
            ) from error
        for name, content in data.items():
            self._own[name].add(digests[name])
            write_inside(self.path / name, content)

    def close(self) -> None:
        self._notes.close()
