"""Inputs on object storage and other file systems, by fsspec: ``s3://bucket/photos``, ``gs://…``, ``hf://…``.

Nothing that is read there leads elsewhere: names are joined to the person's address, never taken for addresses.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ..errors import DataError, EmptyFolderError, MissingExtraError, SeeWhyError
from ..pictures.images import MAX_BYTES
from ..pictures.shards import shards_of
from ..pictures.sources import SUFFIXES, InMemory, natural_key
from ..pictures.tables import TABLES
from ..storage.output import working_folder
from ..storage.reading import reason
from .inputs import Input, Item, Named, Packed, Shard, names_in_table

T = TypeVar("T")
AT_ONCE = 16
"""Pictures that are fetched at the same time; half as many again wait in memory."""
STATES = ("ETag", "etag", "md5Hash", "content_hash", "mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems call that which changes with a file, in the order in which it is trusted."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/].*")


class Remote:
    """A place on a file system of fsspec's."""

    def __init__(self, address: str) -> None:
        if not _ADDRESS.fullmatch(address) or "::" in address:
            raise DataError(f"{address} is no address. One such as s3://bucket/photos was expected. Write it so.")
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

    def ask(self, question: Callable[[Any], T]) -> T:
        try:
            return question(self.files)
        except SeeWhyError:
            raise
        except Exception as error:  # every file system has errors of its own
            raise unreadable(self.address, error) from error

    def states(self, names: Iterable[str]) -> Iterator[str]:
        """What changes when a file is replaced, for each: ETag, or size and time; several are asked for at once."""

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
    def copied(self, name: str) -> Iterator[Path]:
        """A file below the address, as a temporary one."""
        with working_folder(None) as folder:
            path = folder / PurePosixPath(self.at(name)).name
            self.ask(lambda files: files.get_file(self.at(name), str(path)))
            yield path

    def fetched(self, items: Iterator[Item]) -> Iterator[Item]:
        """Items whose sources are names, as bytes in memory, fetched ahead; others as they are.

        A name that is not there is a picture that fails; whatever else goes wrong is the shard's, which is tried again.
        """
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
        """Names below the place, a folder at a time, in natural order."""
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
    """What is said where a place does not answer as one that is there and may be read."""
    return DataError(
        f"{address} cannot be read: {type(error).__name__}: {reason(error).rstrip('.')}. A place that is there, and "
        "credentials that may read it, were expected. Check its name, and for s3:// what the AWS tools are set up with."
    )


@dataclass(frozen=True)
class RemoteNamed(Named):
    """Pictures by their names below an address."""

    def _states(self) -> Iterator[str]:
        return Remote(self.place).states(self.names)

    def _items(self) -> Iterator[Item]:
        yield from Remote(self.place).fetched(Item(name, name) for name in self.names)


@dataclass(frozen=True)
class RemotePacked(Packed):
    """A file below an address that holds pictures; a tar is fetched whole."""

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
    """A place of pictures, of tars or Parquet files, or one such file, or a table of names."""

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
                empty = _empty(f"{self.place} names no pictures")
                yield from self._of_names(above, names_in_table(path, self.column), empty)
        else:
            names = [os.path.basename(name) for name in place.ask(lambda files: files.ls(place.root, detail=False))]
            tars, tables = ([n for n in names if n.lower().endswith(ending)] for ending in (".tar", ".parquet"))
            if packed := tars or tables:
                yield from self._of_files(self.place, sorted(packed, key=natural_key))
                return
            empty = _empty(f"No picture is in {self.place} or below")
            yield from self._of_names(self.place, place.pictures(), empty)


def _empty(what: str) -> EmptyFolderError:
    return EmptyFolderError(f"{what}. Files ending in {', '.join(SUFFIXES)} were expected. Give another place.")
