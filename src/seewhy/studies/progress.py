"""What a study has measured so far: one JSON line a number, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import DataError


class Progress:
    """An append-only file of records, each with a ``key``.

    A line cut short by a kill is passed over, and measured again.

    Args:
        path: the file; made if it is not there.

    Raises:
        DataError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.done = {row["key"]: row for row in _lines(path)}
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error}. Give another folder with -o.") from error
        if path.stat().st_size and not _ends_with_newline(path):
            self._file.write("\n")

    def add(self, row: dict[str, Any]) -> None:
        """Note a record; after this call it survives a kill of the process."""
        self.done[row["key"]] = row
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and "key" in row:
                yield row


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
