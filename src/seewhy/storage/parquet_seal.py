"""Parquet files with SHA-256 digests of their rows and footer."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar

from ..explanation.result import HIDDEN, Result
from ..results import Count, Doc
from .reading import open_regular, reason

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter


@dataclass(frozen=True)
class Checked(Result):
    """The result of reading a file completely."""

    file: Annotated[str, Doc("file name")]
    error: Annotated[str, Doc("what is damaged")] = ""


@dataclass(frozen=True)
class Verification(Result):
    """The JSON object that ``seewhy index --verify --json`` prints, with or without ``--parquet``."""

    computed: ClassVar = ("n_files", "damaged")

    output: Annotated[str, Doc("the folder")]
    files: Annotated[tuple[Checked, ...], HIDDEN]

    @property
    def n_files(self) -> Annotated[Count, Doc("files read completely")]:
        return len(self.files)

    @property
    def damaged(self) -> Annotated[tuple[Checked, ...], Doc("files that have changed since they were written")]:
        return tuple(one for one in self.files if one.error)

    def lines(self) -> Iterator[str]:
        n = len(self.files)
        whole = n - len(self.damaged)
        yield f"{self.output}: {whole:,} of {n:,} files are unchanged, {len(self.damaged):,} damaged"
        yield from (f"  {one.file}: {one.error}" for one in self.damaged)


MAGIC = b"seewhy\0\1"
SEALED = "digests"
"""Metadata key of files with digests, so that removed digests are noticed."""
_END = 8
"""Bytes after a footer: its length and ``PAR1``."""
SEAL = len(MAGIC) + 2 * 32
"""Bytes before a footer: the magic bytes and two digests."""
_BLOCK = 2**20


@contextmanager
def sealed_writer(path: Path, schema: pa.Schema) -> Iterator[ParquetWriter]:
    """Yield a writer for a new Parquet file; at the end, the digests are inserted before the footer."""
    from pyarrow.parquet import ParquetWriter

    schema = schema.with_metadata({**(schema.metadata or {}), SEALED: "sha256"})
    with open(path, "x+b") as file:
        with ParquetWriter(file, schema, compression="zstd", use_dictionary=False, write_page_checksum=True) as writer:
            yield writer
        start, _ = _digests(file, file.seek(0, io.SEEK_END))
        rows = _rows_digest(file, start)
        file.seek(start)
        footer = file.read()
        file.seek(start)
        file.write(MAGIC + rows + hashlib.sha256(footer).digest() + footer)


def _rows_digest(file: BinaryIO, length: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while length and (block := file.read(min(_BLOCK, length))):
        digest.update(block)
        length -= len(block)
    return digest.digest()


def sealed_metadata(file: BinaryIO, size: int) -> Any:
    """Return the metadata of a file, after a check of its footer."""
    from pyarrow.parquet import read_metadata

    start, digests = _digests(file, size)
    file.seek(start)
    footer = file.read()
    if digests and hashlib.sha256(footer).digest() != digests[32:]:
        raise ValueError("its footer was changed")
    file.seek(0)
    metadata = read_metadata(file)
    if not digests and SEALED.encode() in (metadata.metadata or {}):
        raise ValueError("its digests were changed")
    return metadata


def check_rows(file: BinaryIO, size: int) -> None:
    """Check the digests of rows and footer."""
    sealed_metadata(file, size)
    start, digests = _digests(file, size)
    if not digests:
        raise ValueError("it has no digests")
    if _rows_digest(file, start - SEAL) != digests[:32]:
        file.seek(0)
        raise ValueError(f"its {_damaged(file)} were changed")


def _digests(file: BinaryIO, size: int) -> tuple[int, bytes]:
    """Return the position of the footer, and the digests; a file of another program has none."""
    if size < _END:
        raise ValueError(f"its {size} bytes are too short for Parquet")
    file.seek(size - _END)
    start = size - _END - int.from_bytes(file.read(4), "little")
    if start < 0:
        raise ValueError("its footer is longer than the file")
    if start < SEAL:
        return start, b""
    file.seek(start - SEAL)
    seal = file.read(SEAL)
    return start, seal.removeprefix(MAGIC) if seal.startswith(MAGIC) else b""


def _damaged(file: BinaryIO) -> str:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    opened = ParquetFile(file, page_checksum_verification=True)
    first = 1
    for group in range(opened.num_row_groups):
        last = first + opened.metadata.row_group(group).num_rows - 1
        try:
            opened.read_row_group(group)
        except (ArrowException, OSError, ValueError):
            return f"rows {first} to {last}"
        first = last + 1
    return "bytes between the rows"


def checked_parquet(path: Path) -> Checked:
    from pyarrow import ArrowException

    try:
        with open_regular(path) as (file, size):
            check_rows(file, size)
            return Checked(path.name)
    except FileNotFoundError:
        raise
    except (OSError, ArrowException, ValueError) as error:
        return Checked(path.name, reason(error))
