"""Files of JSON lines to which records are added, so that an interrupted run can resume."""

from __future__ import annotations

import contextlib
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from ..errors import DataError, ForeignFileError
from .marks import LONGEST, Lines
from .output import check_replaceable, check_single, check_target, descriptor, lock, make_folder, special, write_error


class Journal(AbstractContextManager["Journal"]):
    """A file of records that is read when it is opened, and then extended.

    A file with a line that is not a record of SeeWhy is not changed. An incomplete last line is overwritten. Only one
    process at a time adds records.

    Raises:
        ForeignFileError: SeeWhy did not write the file.
        DataError: the file cannot be read or written, or another process is writing it.
    """

    def __init__(self, path: Path, form: Lines, *, force: bool | None = False, sync: bool = False) -> None:
        self.path, self._form, self._sync = path, form, sync
        self.rows: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        self._keep = self._size = 0
        """Bytes of whole records, and of the file, when it was read."""
        if path.parent.exists():
            check_target(path)
        if special(path) or not path.exists():
            return
        try:
            if self._read():
                check_single(path)
                return
        except OSError as error:
            raise write_error(path, error) from error
        if not force:
            cure = "Choose another name" + (", or --force to begin it again." if force is False else ".")
            raise ForeignFileError(f"{path} exists and was not written by this command. {cure}")
        check_replaceable(path)
        self.rows, self._keep = [], 0

    def _read(self) -> bool:
        place = 0
        with open(self.path, "rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            while line := file.readline(LONGEST):
                is_record = self._form.knows(line)
                if is_record:
                    self.rows.append(json.loads(line))
                elif not self._form.begins(line) and (line.strip() or not place):
                    return False
                place += len(line)
                if is_record or line.endswith(b"\n"):
                    self._keep = place
        return place > 0

    def add(self, row: dict[str, Any]) -> None:
        text = json.dumps(row, ensure_ascii=False)
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.write(text.encode("utf-8", "backslashreplace") + b"\n")
            self._file.flush()
            if self._sync and not special(self.path):
                os.fsync(self._file.fileno())
        except OSError as error:
            raise write_error(self.path, error) from error

    def _opened(self) -> IO[bytes]:
        if special(self.path):
            return open(descriptor(self.path), "wb")
        make_folder(self.path.parent)
        file = open(self.path, "a+b")  # noqa: SIM115
        try:
            if not lock(file) or os.fstat(file.fileno()).st_size != self._size:
                raise DataError(
                    f"Another process is writing {self.path}, or has written it since this run began. Wait until that "
                    "run has ended, and start this run again."
                )
            file.truncate(self._keep)
            if self._keep:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
        except BaseException:
            file.close()
            raise
        return file

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # ``add`` has reported it
                self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()
