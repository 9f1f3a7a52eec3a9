"""Where a run's files lie: a folder of a disk, or a place in object storage, such as s3://bucket/vectors."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ..errors import DataError, SeeWhyError
from ..storage.cache import address_of
from ..storage.folders import write_by, write_first
from ..storage.output import check_folder, make_folder, working_folder
from ..storage.reading import open_regular, reason
from .remote import Remote, unreadable

T = TypeVar("T")
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Kinds of address where an object is seen whole or not at all."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder of a disk, which several machines may share; it travels to whatever process does a shard."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def at(self, name: str) -> str:
        """A file there, as it is called in messages."""
        return str(self.folder / name)

    def check(self) -> None:
        """See, before the work begins, that it can be written to as far as can be told; nothing is touched."""
        check_folder(self.folder)

    def names(self) -> set[str]:
        """What lies there, but for hidden files."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}

    def read(self, name: str, start: int, end: int | None = None) -> bytes:
        """Part of a file; a negative start counts from its end."""
        with open_regular(self.folder / name) as (file, size):
            file.seek(max(0, size + start) if start < 0 else start)
            return file.read(-1 if end is None else end - start)

    def copy(self, name: str) -> AbstractContextManager[Path]:
        """A file as one of this disk, which is read and not changed."""
        return nullcontext(self.folder / name)

    def write_first(self, name: str, data: bytes) -> bool:
        """Write a file where none of that name is there yet, whole or not at all; whether this writer was the first."""
        make_folder(check_folder(self.folder))
        try:
            return write_first(self.folder / name, data)
        except OSError as error:
            raise _unwritten(self.at(name), error) from error

    def write_by(self, name: str, make: Callable[[Path], T]) -> T:
        """Have ``make`` write a file of this disk, which is there under its name when it is whole."""
        try:
            return write_by(self.folder / name, make)
        except OSError as error:
            raise _unwritten(self.at(name), error) from error


def _unwritten(path: str, error: OSError) -> DataError:
    return DataError(
        f"{path} could not be written: {reason(error).lower()}. What is there is whole. Free some space or allow "
        "writing there, and run the same command again."
    )


@dataclass(frozen=True)
class ObjectStore:
    """What lies below an address in object storage; it does what :class:`LocalFolder` does."""

    address: str

    @cached_property
    def _remote(self) -> Remote:
        return Remote(self.address)

    def __getstate__(self) -> dict[str, str]:
        return {"address": self.address}  # connections stay in the process that opened them

    def __str__(self) -> str:
        return self.address

    def at(self, name: str) -> str:
        return f"{self.address}/{name}"

    def check(self) -> None:
        if not self.names():
            bucket = self._remote.root.strip("/").partition("/")[0]
            try:
                self._remote.files.info(bucket)
            except FileNotFoundError as error:
                raise DataError(
                    f"{self.address} cannot be written to: there is no {bucket}. A bucket that is there was expected. "
                    "Make it, or correct its name."
                ) from error
            except Exception:  # listing was allowed below the address alone
                return

    def names(self) -> set[str]:
        root = self._remote.root.strip("/")
        try:
            entries = self._ask(lambda files: files.ls(self._remote.root, detail=True, refresh=True))
        except FileNotFoundError:
            return set()
        # Some tools make an empty object that stands for the folder.
        paths = (one["name"].strip("/") for one in entries if one["name"].strip("/") != root or one.get("size"))
        names = (path.rpartition("/")[2] for path in paths)
        return {name for name in names if not name.startswith(".")}

    def read(self, name: str, start: int, end: int | None = None) -> bytes:
        return self._ask(lambda files: files.cat_file(self._remote.at(name), start=start, end=end), name)

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        with working_folder(None) as folder:
            self._ask(lambda files: files.get_file(self._remote.at(name), str(folder / name)), name)
            yield folder / name

    def _ask(self, question: Callable[[Any], T], name: str = "") -> T:
        try:
            return question(self._remote.files)
        except (FileNotFoundError, SeeWhyError):
            raise
        except Exception as error:  # every file system has errors of its own
            raise unreadable(self.at(name) if name else self.address, error) from error

    def write_first(self, name: str, data: bytes) -> bool:
        files, path = self._remote.files, self._remote.at(name)
        try:
            files.pipe_file(path, data, mode="create")
        except Exception as error:  # every file system has errors of its own
            if name in self.names():
                return False
            if getattr(error, "errno", None) != errno.ENOSYS:  # else the service does not know of firsts
                raise self._unwritten(name, error) from error
            self._put(name, lambda: files.pipe_file(path, data))
        return True

    def write_by(self, name: str, make: Callable[[Path], T]) -> T:
        with working_folder(None) as folder:
            part = folder / name
            try:
                made = make(part)
            except OSError as error:
                raise _unwritten(str(part), error) from error
            self._put(name, lambda: self._remote.files.put_file(str(part), self._remote.at(name)))
        return made

    def _put(self, name: str, put: Callable[[], object]) -> None:
        try:
            put()
        except Exception as error:
            raise self._unwritten(name, error) from error

    def _unwritten(self, name: str, error: Exception) -> DataError:
        return DataError(
            f"{self.at(name)} could not be written: {type(error).__name__}: {reason(error).rstrip('.')}. What is there "
            "is whole. A bucket that answers, and credentials that may write to it, were expected. Check them, and run "
            "the same command again."
        )


Place: TypeAlias = LocalFolder | ObjectStore
Where: TypeAlias = str | Path | Place
"""A place, or its name."""


def find_place(output: Where) -> Place:
    if isinstance(output, LocalFolder | ObjectStore):
        return output
    address = address_of(output)
    if address is None:
        return LocalFolder(Path(output))
    if address.partition("://")[0] not in STORES:
        raise DataError(
            f"{address} is no object storage, in which files appear whole. An address that begins with "
            f"{', '.join(f'{one}://' for one in STORES[:-1])}, or a folder, was expected. Mount it, and "
            "name the folder."
        )
    return ObjectStore(address.rstrip("/"))
