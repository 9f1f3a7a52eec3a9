"""Inputs on object storage and other file systems, by fsspec: ``s3://bucket/photos``, ``gs://…``, ``hf://…``.

The address is the person's, and nothing that is read there leads to another: names are joined to it, never taken for
addresses themselves. A tar is fetched whole, into a temporary file; single pictures are fetched ahead, several at once.
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
from .inputs import Input, Item, Named, Packed, Shard, iter_after, names_in_table, rows_in_parquet, rows_in_tar

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
        """Where a name below it lies."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """The bytes of a file, up to one more than are decoded."""
        return self.files.cat_file(self.at(name), end=MAX_BYTES + 1)

    def state(self, name: str) -> str:
        """What changes when a file is replaced: its ETag, or size and time, as its file system says them."""
        try:
            about = self.files.info(self.at(name))
        except FileNotFoundError:
            return "gone"
        known = [about[key] for key in STATES if about.get(key) is not None]
        return f"{about.get('size')} {known[0] if known else ''}"

    def asked(self, question: Callable[[], T]) -> T:
        """An answer of the file system's."""
        try:
            return question()
        except SeeWhyError:
            raise
        except Exception as error:  # every file system has errors of its own
            raise unreadable(self.address, error) from error


def unreadable(address: str, error: Exception) -> DataError:
    """What is said where a place does not answer as one that is there and may be read."""
    return DataError(
        f"{address} cannot be read: {type(error).__name__}: {reason(error).rstrip('.')}. A place that is there, and "
        "credentials that may read it, were expected. Check its name, and for s3:// what the AWS tools are set up with."
    )


def states(place: Remote, names: Iterable[str]) -> Iterator[str]:
    """The state of each file; several are asked for at once where no listing has said it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from place.asked(lambda: list(pool.map(place.state, names)))


@dataclass(frozen=True)
class RemoteNamed(Named):
    """Pictures by their names below an address."""

    def _states(self) -> Iterator[str]:
        return states(Remote(self.place), self.names)

    def _items(self) -> Iterator[Item]:
        yield from fetched(Remote(self.place), (Item(name, name) for name in self.names))


@dataclass(frozen=True)
class RemotePacked(Packed):
    """A file below an address that holds pictures."""

    def _states(self) -> Iterator[str]:
        return states(Remote(self.place), [self.name])

    def _items(self) -> Iterator[Item]:
        place = Remote(self.place)
        if self.name.lower().endswith(".parquet"):
            with place.asked(lambda: place.files.open(place.at(self.name), "rb")) as file:
                yield from fetched(place, rows_in_parquet(file, PurePosixPath(self.name), self))
            return
        with copied(place, self.name) as path:
            for item in rows_in_tar(path, self):
                data = item.source.load()  # now, as the copy is gone when the last are decoded
                yield Item(item.name, InMemory(item.name, partial(bytes, data)))


@contextmanager
def copied(place: Remote, name: str) -> Iterator[Path]:
    """A file below an address, as a temporary one."""
    with working_folder(None) as folder:
        path = folder / PurePosixPath(place.at(name)).name
        place.asked(lambda: place.files.get_file(place.at(name), str(path)))
        yield path


def fetched(place: Remote, items: Iterator[Item]) -> Iterator[Item]:
    """Items whose sources are names, as bytes in memory, fetched ahead; others as they are.

    A name that is not there is a picture that fails; whatever else goes wrong is the shard's, which is tried again.
    """
    ahead: deque[tuple[str, Future[bytes] | None, Any]] = deque()
    pool = ThreadPoolExecutor(AT_ONCE)

    def submit(n: int) -> None:
        for name, source in islice(items, n):
            ahead.append((name, pool.submit(place.read, source) if isinstance(source, str) else None, source))

    try:
        submit(AT_ONCE * 3 // 2)
        while ahead:
            name, future, source = ahead.popleft()
            yield Item(name, source if future is None else _arrived(place, name, future))
            submit(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _arrived(place: Remote, name: str, future: Future[bytes]) -> InMemory:
    try:
        return InMemory(name, partial(bytes, future.result()))
    except FileNotFoundError as error:
        return InMemory(name, partial(_missing, str(error)))
    except Exception as error:
        raise unreadable(f"{place.address.rstrip('/')}/{name}", error) from error


def _missing(said: str) -> bytes:
    raise FileNotFoundError(said)


class RemoteInput(Input):
    """A place of pictures, of tars or Parquet files, or one such file, or a table of names."""

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "address"

    def shards(self) -> Iterator[Shard]:
        place = Remote(self.place)
        ending = PurePosixPath(self.place).suffix.lower()
        above, _, name = self.place.rpartition("/")
        if "{" in self.place and ending == ".tar":
            yield from self._of_packed(above, [path.name for path in shards_of(f"x/{name}")])
        elif ending in (".tar", ".parquet"):
            place.asked(lambda: place.files.info(place.root))
            yield from self._of_packed(above, [name])
        elif ending in TABLES:
            with copied(place, "") as path:
                names = names_in_table(path, self.column)
                yield from self._of_remote(above, names, f"{self.place} names no pictures")
        elif packed := self._packed(place):
            yield from self._of_packed(self.place, packed)
        else:
            yield from self._of_remote(self.place, _pictures(place), f"No picture is in {self.place} or below")

    def _packed(self, place: Remote) -> list[str]:
        """The tars, else the Parquet files, that lie there."""
        names = [os.path.basename(one) for one in place.asked(lambda: place.files.ls(place.root, detail=False))]
        for ending in (".tar", ".parquet"):
            if found := [name for name in names if name.lower().endswith(ending)]:
                return sorted(found, key=natural_key)
        return []

    def _of_packed(self, above: str, names: list[str]) -> Iterator[Shard]:
        for index, name in enumerate(names):
            yield RemotePacked(index, name, above, self.column)

    def _of_remote(self, above: str, names: Iterator[str], empty: str) -> Iterator[Shard]:
        first = next(names, None)
        if first is None:
            raise EmptyFolderError(f"{empty}. Files ending in {', '.join(SUFFIXES)} were expected. Give another place.")
        for shard in self._of_names(above, iter_after(first, names)):
            yield RemoteNamed(shard.index, shard.name, shard.place, shard.names)


def _pictures(place: Remote) -> Iterator[str]:
    """Names below a place, a folder at a time, in natural order."""
    pending = [""]
    while pending:
        folder = pending.pop()
        found = place.asked(lambda: place.files.ls(place.at(folder), detail=True))  # noqa: B023
        entries = [(os.path.basename(one["name"].rstrip("/")), one["type"]) for one in found]
        inside = [(f"{folder}/{name}" if folder else name, kind) for name, kind in entries if not name.startswith(".")]
        inside.sort(key=lambda one: natural_key(one[0]))
        yield from (n for n, kind in inside if kind == "file" and n.lower().endswith(SUFFIXES))
        pending += [n for n, kind in reversed(inside) if kind == "directory"]
