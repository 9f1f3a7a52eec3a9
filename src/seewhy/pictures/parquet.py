"""Parquet, read in pieces; a file whose few bytes unpack to gigabytes is refused by what its footer says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

from ..errors import DataError, MissingExtraError
from ..storage.reading import reason

ROOM = 1 << 26
"""Bytes that the cells of a column may take at once, were each as long as all of its pages."""
MOST_ROWS = 4096
"""Rows that are in memory at once."""
FREE_BYTES, FREE_VALUES = 1 << 28, 1 << 22
"""What any file may unpack to, and how many values it may have."""
BYTES_PER_BYTE, VALUES_PER_BYTE = 250, 64
"""What may come beyond that of each byte of the file; tables of pictures unpack to 1 to 20 times their bytes."""


def parquet_batches(
    opened: Any, where: PurePath, choose: Callable[[list[str]], Sequence[str] | None], most_rows: int = MOST_ROWS
) -> Iterator[Any]:
    """The rows, some at a time, as record batches of pyarrow."""
    try:
        from pyarrow import ArrowException, RecordBatch
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtraError("parquet", "Reading Parquet") from error
    try:
        size, left = opened.seek(0, 2), FREE_BYTES
        with ParquetFile(opened) as file:
            columns = choose(file.schema_arrow.names)
            longest = _check(file.metadata, columns, size, where)
            left += BYTES_PER_BYTE * size
            for batch in file.iter_batches(max(1, min(most_rows, ROOM // max(longest, 1))), columns=columns):
                # Of a text that is written once for many rows, the footer tells the length once.
                rows = RecordBatch.from_arrays([_plain(c, where) for c in batch.columns], batch.schema.names)
                if (left := left - rows.nbytes) < 0:
                    raise _bomb(where, size, f"more than {FREE_BYTES + BYTES_PER_BYTE * size:,} bytes")
                yield rows
    except (ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{where} cannot be read: {reason(error)}. Give a Parquet file.") from error


def _check(metadata: Any, columns: Sequence[str] | None, size: int, where: PurePath) -> int:
    """Bytes of the longest column of a part of the file, as the footer states them."""
    unpacked, longest, values = 0, 0, Counter[str]()
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for column in map(group.column, range(group.num_columns)):
            path = column.path_in_schema
            if columns is None or any(path == name or path.startswith(f"{name}.") for name in columns):
                unpacked += column.total_uncompressed_size
                longest = max(longest, column.total_uncompressed_size)
                values[path] += max(column.num_values, group.num_rows)
    if unpacked > FREE_BYTES + BYTES_PER_BYTE * size:
        raise _bomb(where, size, f"{unpacked:,} bytes")
    if (most := max(values.values(), default=0)) > FREE_VALUES + VALUES_PER_BYTE * size:
        raise _bomb(where, size, f"{most:,} values of a column")
    return longest


def _plain(column: Any, where: PurePath) -> Any:
    """A column each of whose cells stands for itself, and not for one that is written elsewhere."""
    if hasattr(column, "dictionary_decode"):
        return column.dictionary_decode()
    pending = [column.type]
    while pending:
        kind = pending.pop()
        pending += [kind.field(i).type for i in range(kind.num_fields)]
        if hasattr(kind, "index_type"):
            raise DataError(f"{where} has lists of categories. Lists of texts were expected. Write them as texts.")
    return column


def _bomb(where: PurePath, size: int, what: str) -> DataError:
    return DataError(
        f"{where} has {size:,} bytes, which unpack to {what}. A table whose rows are not all the same was expected. "
        "Write it anew, or give it as CSV."
    )
