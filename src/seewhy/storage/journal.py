"""Files of JSON lines to which records are added, so that an interrupted run can resume."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from ..errors import ForeignFileError
from .marks import LONGEST, Lines
from .output import check_target, descriptor, make_folder, special


class Journal(AbstractContextManager["Journal"]):
    """A file of records that is read when it is opened, and then extended.

    A file with a line that is not a record of SeeWhy is not changed. An incomplete last line is overwritten.
    """

    def __init__(self, path: Path, form: Lines, *, force: bool | None = False, sync: bool = False) -> None:
        self.path, self._form, self._sync = path, form, sync
        self.rows: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        self._cut: int | None = None
        self._anew = False
        if path.parent.exists():
            check_target(path)
        if special(path) or not path.exists():
            return
        if self._read():
            return
        if not force:
            cure = "Choose another name" + (", or --force to begin it again." if force is False else ".")
            raise ForeignFileError(f"{path} exists and was not written by this command. {cure}")
        self.rows, self._cut, self._anew = [], None, True

    def _read(self) -> bool:
        place = 0
        with open(self.path, "rb") as file:
            while line := file.readline(LONGEST):
                if self._form.knows(line):
                    self.rows.append(json.loads(line))
                elif not self._form.begins(line) and (line.strip() or not place):
                    return False
                elif not line.endswith(b"\n"):
                    self._cut = place
                place += len(line)
        return place > 0

    def add(self, row: dict[str, Any]) -> None:
        if self._file is None:
            self._file = self._opened()
        text = json.dumps(row, ensure_ascii=False)
        self._file.write(text.encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()
        if self._sync and not special(self.path):
            os.fsync(self._file.fileno())

    def _opened(self) -> IO[bytes]:
        if special(self.path):
            return open(descriptor(self.path), "wb")
        make_folder(self.path.parent)
        file = open(self.path, "wb" if self._anew else "ab")  # noqa: SIM115
        if self._cut is not None:
            file.truncate(self._cut)
        elif self.rows and not self._anew:
            with open(self.path, "rb") as written:
                written.seek(-1, os.SEEK_END)
                if written.read(1) != b"\n":
                    file.write(b"\n")
        return file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()
