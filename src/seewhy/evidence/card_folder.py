"""The folder that cards go to: whose name is whose, which files it wrote itself, what earlier runs noted."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..features import file_digest
from ..storage.output import write_atomic

RECORDS = "explanations.jsonl"
PROGRESS = ".explanations.progress.jsonl"
INDEX = "index.html"


class CardFolder:
    """A folder of cards with their index, their JSON lines and the notes of earlier runs.

    It writes over a file only where that file is its own: each is noted with its digest before it is written. A card's
    name is its picture's, or that with a part of a digest where another picture, or a file of the user, has the name.

    Args:
        path: the folder, made if it is not there.

    Raises:
        DataError: it cannot be made or written to, or holds an index of somebody else's.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"The folder {path} cannot be made: {error}. Give another with -o.") from error
        self.path = path
        self._real = os.path.realpath(path)
        self._owners = {"index": ""}
        self._own: dict[str, set[str]] = defaultdict(set)
        self._lines: dict[str, dict[str, Any]] = {}
        notes = path / PROGRESS
        for taken in (INDEX, RECORDS):
            if (path / taken).exists() and not notes.exists():
                raise DataError(
                    f"{path / taken} is there already, and not from seewhy explain. A folder without such a file was "
                    "expected. Give another with -o."
                )
        try:
            self._read(notes)
            self._notes = open(notes, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        except OSError as error:
            raise DataError(
                f"The folder {path} cannot be written to: {error.strerror}. Give another with -o."
            ) from error

    def _read(self, notes: Path) -> None:
        """What earlier runs noted; a line cut short by a kill is passed over, since its card is simply made again."""
        data = notes.read_bytes() if notes.exists() else b""
        for text in data.split(b"\n"):
            try:
                line = json.loads(text)
                self._owners.setdefault(Path(line["entry"]["href"]).stem.casefold(), line["record"]["image"])
                for file, digest in line["files"].items():
                    self._own[file].add(digest)
                self._lines[line["key"]] = line
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        if data and not data.endswith(b"\n"):
            with open(notes, "ab") as file:
                file.write(b"\n")

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
        """The name of a picture's card, without an ending: safe for any disk, no other picture's, and no user's file.

        Raises:
            DataError: the user has files under every name it could have.
        """
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
        data = {n: f.encode("utf-8", "backslashreplace") if isinstance(f, str) else f for n, f in files.items()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
        line = {"key": key, "record": record, "entry": entry, "files": digests}
        self._notes.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._notes.flush()
        for name, content in data.items():
            self._own[name].add(digests[name])
            write_atomic(self.path / name, content)

    def finish(self, lines: Sequence[dict[str, Any]], index: str) -> None:
        """Write the JSON lines and the index of this run."""
        write_atomic(self.path / RECORDS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        write_atomic(self.path / INDEX, index)

    def close(self) -> None:
        self._notes.close()
