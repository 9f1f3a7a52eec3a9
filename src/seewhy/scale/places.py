"""The input and output of a run, in a local folder or in object storage such as ``s3://bucket/vectors``."""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar

from ..errors import DataError, EmptyFolderError, MissingExtraError, SeeWhyError
from ..pictures.images import MAX_BYTES
from ..pictures.shards import shards_of
from ..pictures.sources import SUFFIXES, InMemory, natural_key
from ..pictures.tables import TABLES
from ..storage.cache import address_of
from ..storage.folders import write_by, write_first
from ..storage.output import check_folder, make_folder, working_folder
from ..storage.reading import open_regular, reason
from .inputs import Input, Item, Named, Packed, Shard, names_in_table

T = TypeVar("T")
AT_ONCE = 16
"""Number of pictures that are fetched at the same time; half as many wait in memory."""
STATES = ("ETag", "etag", "md5Hash", "content_hash", "mtime", "LastModified", "last_modified", "updated", "created")
"""File-system fields that change with a file, the most reliable first."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/].*")


class Remote:
    """An address on an fsspec file system."""

    def __init__(self, address: str) -> None:
        if not _ADDRESS.fullmatch(address) or "::" in address:
            raise DataError(f"An address must have the form s3://bucket/photos, got {address}.")
        try:
            from fsspec.core import url_to_fs

            self.files, self.root = url_to_fs(address)
        except ImportError as error:
            raise MissingExtraError("s3", f"Reading {address}") from error
        except Exception as error:
            raise unreadable(address, error) from error
        self.address = address

    def at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def ask(self, question: Callable[[Any], T], name: str = "", *, gone: bool = False) -> T:
        """Query the file system; if ``gone`` is true, a missing name raises ``FileNotFoundError``."""
        try:
            return question(self.files)
        except SeeWhyError:
            raise
        except Exception as error:  # every file system raises its own exceptions
            if gone and isinstance(error, FileNotFoundError):
                raise
            raise unreadable(f"{self.address.rstrip('/')}/{name}" if name else self.address, error) from error

    def states(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the ETag, or the size and time, of each file."""

        def state(name: str) -> str:
            try:
                about = self.files.info(self.at(name))
            except FileNotFoundError:
                return "gone"
            known = [about[key] for key in STATES if about.get(key) is not None]
            return f"{about.get('size')} {known[0] if known else ''}"

        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from self.ask(lambda _: list(pool.map(state, names)))

    @contextmanager
    def copied(self, name: str, *, gone: bool = False) -> Iterator[Path]:
        """Copy a file below the address to a temporary file."""
        with working_folder(None) as folder:
            path = folder / PurePosixPath(self.at(name)).name
            self.ask(lambda files: files.get_file(self.at(name), str(path)), name, gone=gone)
            yield path

    def fetched(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the items with their bytes, which are fetched ahead; a missing name makes only its picture fail."""
        ahead: deque[tuple[Item, Future[bytes] | None]] = deque()
        pool = ThreadPoolExecutor(AT_ONCE)

        def read(name: str) -> bytes:
            return self.files.cat_file(self.at(name), end=MAX_BYTES + 1)  # one more than are decoded

        def submit(n: int) -> None:
            for item in islice(items, n):
                ahead.append((item, pool.submit(read, item.source) if isinstance(item.source, str) else None))

        try:
            submit(AT_ONCE * 3 // 2)
            while ahead:
                item, future = ahead.popleft()
                yield item if future is None else Item(item.name, self._arrived(item.name, future))
                submit(1)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _arrived(self, name: str, future: Future[bytes]) -> InMemory:
        try:
            return InMemory(name, partial(bytes, future.result()))
        except FileNotFoundError as error:
            return InMemory(name, partial(_missing, str(error)))
        except Exception as error:
            raise unreadable(f"{self.address.rstrip('/')}/{name}", error) from error

    def pictures(self) -> Iterator[str]:
        """Yield the picture names below the address, folder by folder in natural order."""
        pending = [""]
        while pending:
            folder = pending.pop()
            entries = self.ask(lambda files: files.ls(self.at(folder), detail=True))  # noqa: B023
            named = [(os.path.basename(entry["name"].rstrip("/")), entry["type"]) for entry in entries]
            inside = [(f"{folder}/{name}" if folder else name, kind) for name, kind in named if name[:1] != "."]
            inside.sort(key=lambda entry: natural_key(entry[0]))
            yield from (n for n, kind in inside if kind == "file" and n.lower().endswith(SUFFIXES))
            pending += [n for n, kind in reversed(inside) if kind == "directory"]


def _missing(message: str) -> bytes:
    raise FileNotFoundError(message)


def unreadable(address: str, error: Exception) -> DataError:
    """Return the error for an address that cannot be read."""
    return DataError(
        f"{address} cannot be read: {type(error).__name__}: {reason(error).rstrip('.')}. Check "
        "the address and the credentials; for s3://, check the settings of the AWS tools."
    )


@dataclass(frozen=True)
class RemoteNamed(Named):
    """Pictures given by names below an address."""

    def _states(self) -> Iterator[str]:
        return Remote(self.place).states(self.names)

    def _items(self) -> Iterator[Item]:
        yield from Remote(self.place).fetched(Item(name, name) for name in self.names)


@dataclass(frozen=True)
class RemotePacked(Packed):
    """A tar or Parquet file below an address; a tar file is downloaded completely."""

    def _states(self) -> Iterator[str]:
        return Remote(self.place).states([self.name])

    def _items(self) -> Iterator[Item]:
        place = Remote(self.place)
        if self.name.lower().endswith(".parquet"):
            with place.ask(lambda files: files.open(place.at(self.name), "rb")) as file:
                yield from place.fetched(self.rows_in_parquet(file, PurePosixPath(self.name)))
            return
        with place.copied(self.name) as path:
            for item in self.rows_in_tar(path):
                data = item.source.load()  # now, as the copy is gone when the last are decoded
                yield Item(item.name, InMemory(item.name, partial(bytes, data)))


class RemoteInput(Input):
    """A folder of pictures, tar or Parquet files, one such file, or a table of names, at an address."""

    kind = "address"
    of_names = RemoteNamed
    of_files = RemotePacked

    def shards(self) -> Iterator[Shard]:
        place = Remote(self.place)
        ending = PurePosixPath(self.place).suffix.lower()
        above, _, name = self.place.rpartition("/")
        if "{" in self.place and ending == ".tar":
            yield from self._of_files(above, [path.name for path in shards_of(f"x/{name}")])
        elif ending in (".tar", ".parquet"):
            place.ask(lambda files: files.info(place.root))
            yield from self._of_files(above, [name])
        elif ending in TABLES:
            with place.copied("") as path:
                empty = _empty(f"{self.place} has no file names of pictures")
                yield from self._of_names(above, names_in_table(path, self.column), empty)
        else:
            names = [os.path.basename(name) for name in place.ask(lambda files: files.ls(place.root, detail=False))]
            tars, tables = ([n for n in names if n.lower().endswith(ending)] for ending in (".tar", ".parquet"))
            if packed := tars or tables:
                yield from self._of_files(self.place, sorted(packed, key=natural_key))
                return
            empty = _empty(f"{self.place} has no pictures")
            yield from self._of_names(self.place, place.pictures(), empty)


def _empty(what: str) -> EmptyFolderError:
    return EmptyFolderError(f"{what}. Pictures end in {', '.join(SUFFIXES)}. Give another place.")


STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Protocols with atomic writes: an object is visible completely or not at all."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk, which several machines may share."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def at(self, name: str) -> str:
        """Return the path of a file, for messages."""
        return str(self.folder / name)

    def check(self) -> None:
        """Check that the folder is writable, without changing it."""
        check_folder(self.folder)

    def names(self) -> set[str]:
        """Return the names in the folder, except hidden files."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}

    def read(self, name: str, start: int, end: int | None = None) -> bytes:
        """Read a byte range of a file; a negative start counts from the end."""
        with open_regular(self.folder / name) as (file, size):
            file.seek(max(0, size + start) if start < 0 else start)
            return file.read(-1 if end is None else end - start)

    def copy(self, name: str) -> AbstractContextManager[Path]:
        """Return a local path of a file, for reading only."""
        return nullcontext(self.folder / name)

    def write_first(self, name: str, data: bytes) -> bool:
        """Write a file atomically unless it exists; return whether it was written."""
        make_folder(check_folder(self.folder))
        try:
            return write_first(self.folder / name, data)
        except OSError as error:
            raise _unwritten(self.at(name), error) from error

    def write_by(self, name: str, make: Callable[[Path], T]) -> T:
        """Write a file atomically by calling ``make`` with a temporary path."""
        try:
            return write_by(self.folder / name, make)
        except OSError as error:
            raise _unwritten(self.at(name), error) from error


def _unwritten(path: str, error: OSError) -> DataError:
    return DataError(
        f"{path} could not be written: {reason(error).lower()}. Free some space or allow writing "
        "there, then run the same command again; files already written are complete."
    )


@dataclass(frozen=True)
class ObjectStore:
    """Files below an address in object storage, with the interface of :class:`LocalFolder`."""

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
                    f"{self.address} cannot be written: the bucket {bucket} does not exist. Create it, or "
                    "correct its name."
                ) from error
            except Exception:  # listing the parent may be forbidden
                return

    def names(self) -> set[str]:
        root = self._remote.root.strip("/")
        try:
            entries = self._remote.ask(lambda files: files.ls(self._remote.root, detail=True, refresh=True), gone=True)
        except FileNotFoundError:
            return set()
        # Some tools make an empty object that stands for the folder.
        paths = (one["name"].strip("/") for one in entries if one["name"].strip("/") != root or one.get("size"))
        names = (path.rpartition("/")[2] for path in paths)
        return {name for name in names if not name.startswith(".")}

    def read(self, name: str, start: int, end: int | None = None) -> bytes:
        path = self._remote.at(name)
        return self._remote.ask(lambda files: files.cat_file(path, start=start, end=end), name, gone=True)

    def copy(self, name: str) -> AbstractContextManager[Path]:
        return self._remote.copied(name, gone=True)

    def write_first(self, name: str, data: bytes) -> bool:
        files, path = self._remote.files, self._remote.at(name)
        try:
            files.pipe_file(path, data, mode="create")
        except Exception as error:  # every file system raises its own exceptions
            if name in self.names():
                return False
            if getattr(error, "errno", None) != errno.ENOSYS:  # ENOSYS: the service has no "create only if absent"
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
            f"{self.at(name)} could not be written: {type(error).__name__}: {reason(error).rstrip('.')}. Check the "
            "bucket and the credentials, then run the same command again; files already written are complete."
        )


Place: TypeAlias = LocalFolder | ObjectStore
Where: TypeAlias = str | Path | Place
"""A place, or its path or address."""


def find_place(output: Where) -> Place:
    if isinstance(output, LocalFolder | ObjectStore):
        return output
    address = address_of(output)
    if address is None:
        return LocalFolder(Path(output))
    if address.partition("://")[0] not in STORES:
        raise DataError(
            f"{address} has no atomic writes. Give a folder, or an address that begins with "
            f"{', '.join(f'{one}://' for one in STORES[:-1])}, or mount the place and give its folder."
        )
    return ObjectStore(address.rstrip("/"))
