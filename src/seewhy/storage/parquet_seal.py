"""Parquet files with SHA-256 digests of their rows and footer."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar

from ..explanation.result import HIDDEN, Result
from ..results import Count, Doc
from .marks import MADE_BY
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
SEAL = len(MAGIC) + 2 * 32
"""Bytes before a footer: the magic bytes, and the SHA-256 of the rows and of the footer."""


@contextmanager
def sealed_writer(path: Path, schema: pa.Schema) -> Iterator[ParquetWriter]:
    """Yield a writer for a new Parquet file; at the end, the digests are inserted before the footer."""
    from pyarrow.parquet import ParquetWriter

    with open(path, "x+b") as file:
        with ParquetWriter(file, schema, compression="zstd", use_dictionary=False, write_page_checksum=True) as writer:
            yield writer
        file.flush()
        data = _mapped(file)
        start = _footer_start(data)
        digests = b"".join(hashlib.sha256(part).digest() for part in (data[:start], data[start:]))
        file.seek(start)
        file.write(MAGIC + digests + data[start:].to_pybytes())


def _mapped(file: BinaryIO) -> pa.Buffer:
    """Return the bytes of a file; its name may be gone."""
    from pyarrow import py_buffer

    return py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _footer_start(data: pa.Buffer) -> int:
    start = data.size - 8 - int.from_bytes(data[-8:-4], "little")
    if start < 0:
        raise ValueError(f"its {data.size} bytes do not end like a Parquet file")
    return start


def sealed_metadata(data: pa.Buffer) -> tuple[Any, bytes]:
    """Return the metadata at the end of a file after a check of its footer, and the digest of its rows.

    A file of another program has no digest.
    """
    from pyarrow import BufferReader
    from pyarrow.parquet import read_metadata

    start = _footer_start(data)
    seal = data[max(0, start - SEAL) : start].to_pybytes()
    is_sealed = seal.startswith(MAGIC)
    if is_sealed and hashlib.sha256(data[start:]).digest() != seal[-32:]:
        raise ValueError("its footer was changed")
    metadata = read_metadata(BufferReader(data))
    if not is_sealed and MADE_BY.encode() in (metadata.metadata or {}):
        raise ValueError("it has no digests")
    return metadata, seal[-64:-32] if is_sealed else b""


def _damaged(data: pa.Buffer) -> str:
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import ParquetFile

    opened = ParquetFile(BufferReader(data), page_checksum_verification=True)
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
    """Check the digests of rows and footer."""
    from pyarrow import ArrowException

    try:
        with open_regular(path) as (file, _):
            data = _mapped(file)
        _, digest = sealed_metadata(data)
        if digest != hashlib.sha256(data[: _footer_start(data) - SEAL]).digest():
            raise ValueError(f"its {_damaged(data)} were changed" if digest else "it has no digests")
        return Checked(path.name)
    except (OSError, ArrowException, ValueError) as error:
        return Checked(path.name, reason(error))
