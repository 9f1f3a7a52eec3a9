"""The input of a long run, split into the same shards in every process.

Folders and tables are split by number of pictures; tar and Parquet files are one shard each. Names are relative to the
input, and a job can resume after the input was moved.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, takewhile
from pathlib import Path, PurePath
from typing import Any, ClassVar, NamedTuple, Self

from ..errors import DataError, InputError, SeeWhyError
from ..pictures.shards import records_of, shards_of
from ..pictures.sources import InMemory, list_pictures, natural_key
from ..pictures.tables import IMAGE_COLUMNS, TABLES, cell_text, no_column, parquet_batches, rows_of
from ..storage.reading import open_regular, reason

PER_SHARD = 2048
"""Pictures per shard of a folder or table; an interruption loses about a minute of a CPU's work."""
IN_HAND = 64
"""Rows of a Parquet file in memory at once."""


class ShardError(DataError):
    """A shard of the input that cannot be read completely."""


class Item(NamedTuple):
    """A picture of a shard: its name and source."""

    name: str
    source: Any


@dataclass(frozen=True)
class Shard(ABC):
    """A part of the input that one process handles, with a digest of the sizes and times of its files."""

    index: int
    name: str
    stamp: str = field(default="", kw_only=True)

    @property
    @abstractmethod
    def digest(self) -> str:
        """Digest of the names of the shard's pictures."""

    def stamped(self) -> Self:
        """Return the shard with a digest of the current sizes and times of its files."""
        return replace(self, stamp=digest_of(self._states()))

    def _states(self) -> Iterator[str]:
        yield from ()

    @abstractmethod
    def _items(self) -> Iterator[Item]: ...

    def items(self) -> Iterator[Item]:
        """Yield the shard's pictures in order; raises ShardError if the shard cannot be read completely."""
        try:
            yield from self._items()
        except SeeWhyError as error:
            raise ShardError(str(error)) from error
        except OSError as error:
            raise ShardError(reason(error)) from error


def digest_of(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:32]


def state_of(path: str) -> str:
    """Return the size and time of a file, or the error number if it is missing."""
    try:
        about = os.stat(path)
    except OSError as error:
        return f"{error.errno}"
    return f"{about.st_size} {about.st_mtime_ns}"


@dataclass(frozen=True)
class Named(Shard):
    """Pictures given by file names relative to a folder."""

    place: str
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.names)

    def _states(self) -> Iterator[str]:
        return (state_of(os.path.join(self.place, name)) for name in self.names)

    def _items(self) -> Iterator[Item]:
        for name in self.names:
            yield Item(name, os.path.join(self.place, name))
        if not os.path.isdir(self.place):
            raise DataError(f"The folder {self.place} no longer exists. Restore it.")


@dataclass(frozen=True)
class Packed(Shard):
    """A tar or Parquet file of pictures; ``column`` is the picture column of a Parquet file."""

    place: str
    column: str | None = None

    @property
    def digest(self) -> str:
        return digest_of([self.name])

    def _states(self) -> Iterator[str]:
        path = Path(self.place, self.name)
        yield state_of(str(path))
        if path.suffix.lower() == ".parquet" and path.is_file():
            with suppress(OSError, SeeWhyError), open_regular(path) as (file, _):  # reported when its pictures are read
                named = takewhile(lambda item: isinstance(item.source, str), self.rows_in_parquet(file, path))
                yield from (state_of(item.source) for item in named)

    def _items(self) -> Iterator[Item]:
        path = Path(self.place, self.name)
        if path.suffix.lower() != ".parquet":
            yield from self.rows_in_tar(path)
            return
        with open_regular(path) as (file, _):
            yield from self.rows_in_parquet(file, path)

    def rows_in_tar(self, path: Path) -> Iterator[Item]:
        for _, record in records_of(path, []):
            if record.picture is not None:
                yield Item(f"{self.name}/{record.picture.name.removeprefix(f'{path}/')}", record.picture)

    def rows_in_parquet(self, opened: Any, path: PurePath) -> Iterator[Item]:
        """Yield the pictures of an open Parquet file; file names are relative to that file."""
        number = 0
        for batch in parquet_batches(opened, path, lambda names: [_picture_column(path, names, self.column)], IN_HAND):
            try:
                cells = batch.column(0).to_pylist()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path} is not a readable Parquet file: {reason(error)}. Give another file."
                ) from error
            for value in cells:
                yield self._row(path, number, value)
                number += 1

    def _row(self, path: PurePath, number: int, value: Any) -> Item:
        place = value.get("path") if isinstance(value, Mapping) else value
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(data, bytes) and isinstance(place, str) and place.strip():
            return Item(os.path.join(os.path.dirname(self.name), place), str(path.parent / place))
        name = f"{self.name}/{number}"
        return Item(name, InMemory(name, partial(bytes, data if isinstance(data, bytes) else b"")))


def _picture_column(path: PurePath, names: list[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in names:
        raise no_column(path, wanted, names)
    column = wanted or next((name for name in IMAGE_COLUMNS if name in names), None)
    if column is None:
        raise DataError(
            f"{path} has no column of pictures among {', '.join(map(repr, names))}. Give the column "
            f"with --column, or rename it to {IMAGE_COLUMNS[0]!r}."
        )
    return column


@dataclass(frozen=True)
class Input(ABC):
    """The input of a run; ``column`` is the picture column of a table."""

    place: str
    per_shard: int = PER_SHARD
    column: str | None = None

    kind: ClassVar[str] = ""
    of_names: ClassVar[type[Named]] = Named
    of_files: ClassVar[type[Packed]] = Packed

    @abstractmethod
    def shards(self) -> Iterator[Shard]:
        """Yield the shards in order."""

    def _of_names(self, place: str, names: Iterator[str], empty: DataError | None = None) -> Iterator[Named]:
        first = 1
        for index, part in enumerate(iter(lambda: tuple(islice(names, self.per_shard)), ())):
            yield self.of_names(index, f"pictures {first} to {first + len(part) - 1}", place, part)
            first += len(part)
        if first == 1 and empty is not None:
            raise empty

    def _of_files(self, place: str, names: Iterable[str]) -> Iterator[Packed]:
        for index, name in enumerate(names):
            yield self.of_files(index, name, place, self.column)


class Folder(Input):
    """A folder of pictures, with its subfolders."""

    kind = "folder"

    def shards(self) -> Iterator[Shard]:
        cut = len(self.place.rstrip("/")) + 1 if self.place.strip("/") else 1
        yield from self._of_names(self.place, (name[cut:] for name in list_pictures([self.place])))


class Table(Input):
    """A table with a column of file names relative to the table."""

    kind = "table"

    def shards(self) -> Iterator[Shard]:
        path = Path(self.place)
        empty = DataError(f"{path} has no file names of pictures. Add one row per picture.")
        yield from self._of_names(str(path.parent), names_in_table(path, self.column), empty)


def names_in_table(path: Path, wanted: str | None) -> Iterator[str]:
    """Yield the file names of a table; rows without a file name are skipped."""
    column = None
    for number, row in enumerate(rows_of(path), start=1):
        column = column or _picture_column(path, list(map(str, row)), wanted)
        if (name := cell_text(row.get(column), f"{path}, row {number}, column {column!r},")).strip():
            yield name


class Tars(Input):
    """WebDataset shards."""

    kind = "tars"

    def shards(self) -> Iterator[Shard]:
        place = self.place if os.path.isdir(self.place) else str(Path(self.place).parent)
        yield from self._of_files(place, (os.path.relpath(path, place) for path in shards_of(self.place)))


class ParquetFiles(Input):
    """Parquet files with a column of pictures."""

    kind = "parquet"

    def shards(self) -> Iterator[Shard]:
        path = Path(self.place)
        names = sorted((p.name for p in path.glob("*.parquet")), key=natural_key) if path.is_dir() else [path.name]
        yield from self._of_files(str(path if path.is_dir() else path.parent), names)


def find_input(place: str | Path, *, per_shard: int = PER_SHARD, column: str | None = None) -> Input:
    text = os.fspath(place)
    if per_shard < 1:
        raise InputError(f"`per_shard` must be at least 1, got {per_shard}.")
    if "://" in text:
        from .places import RemoteInput  # imported here because it imports this module

        return RemoteInput(text, per_shard, column)
    path, suffix = Path(text), Path(text).suffix.lower()
    kind: type[Input] | None = None
    if shards_of(text):
        kind = Tars
    elif path.is_dir():
        kind = ParquetFiles if any(path.glob("*.parquet")) else Folder
    elif suffix in TABLES:
        kind = ParquetFiles if suffix == ".parquet" else Table
    if kind is None or not (path.exists() or kind is Tars):
        is_there = "is neither a folder, a table nor a shard" if path.exists() else "does not exist"
        raise DataError(
            f"{text} {is_there}. Give a folder of pictures, a table ending in {', '.join(TABLES)}, or .tar shards."
        )
    return kind(text, per_shard, column)
