"""Read tables and Parquet files strictly, and find the columns of pictures and texts."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path, PurePath
from typing import Any, Literal

from ..errors import DataError, InputError, needs
from ..printable import from_spreadsheet
from ..spelling import first_repeated, nearest
from ..storage.reading import json_value, open_lines, open_regular, readable, reason

ROOM = 1 << 26
"""Maximum bytes of a column that are read at once."""
MOST_ROWS = 4096
"""Maximum number of rows in memory at once."""
FREE_BYTES, FREE_VALUES = 1 << 28, 1 << 22
"""Uncompressed bytes and number of values that any file may have."""
BYTES_PER_BYTE, VALUES_PER_BYTE = 250, 64
"""Additional uncompressed bytes and values per byte of the file; tables of pictures expand 1 to 20 times."""


def parquet_batches(
    opened: Any, where: PurePath, choose: Callable[[list[str]], Sequence[str] | None], most_rows: int = MOST_ROWS
) -> Iterator[Any]:
    """Yield the rows as pyarrow record batches."""
    with needs("parquet", "Reading Parquet"):
        from pyarrow import ArrowException, RecordBatch
        from pyarrow.parquet import ParquetFile
    try:
        size, left = opened.seek(0, 2), FREE_BYTES
        with ParquetFile(opened) as file:
            columns = choose(file.schema_arrow.names)
            longest = _check(file.metadata, columns, size, where)
            left += BYTES_PER_BYTE * size
            for batch in file.iter_batches(max(1, min(most_rows, ROOM // max(longest, 1))), columns=columns):
                # The footer counts a dictionary-encoded text once, even if many rows use it.
                rows = RecordBatch.from_arrays([_plain(c, where) for c in batch.columns], batch.schema.names)
                if (left := left - rows.nbytes) < 0:
                    raise _bomb(where, size, f"more than {FREE_BYTES + BYTES_PER_BYTE * size:,} bytes")
                yield rows
    except (ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{where} cannot be read as Parquet: {reason(error)}. Write it again.") from error


def _check(metadata: Any, columns: Sequence[str] | None, size: int, where: PurePath) -> int:
    """Check the uncompressed size in the footer, and return the bytes of the longest column chunk."""
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
    if hasattr(column, "dictionary_decode"):
        return column.dictionary_decode()
    pending = [column.type]
    while pending:
        kind = pending.pop()
        pending += [kind.field(i).type for i in range(kind.num_fields)]
        if hasattr(kind, "index_type"):
            raise DataError(f"{where} must have lists of texts, got lists of categories. Write them as texts.")
    return column


def _bomb(where: PurePath, size: int, what: str) -> DataError:
    return DataError(
        f"{where} has {size:,} bytes, which expand to {what}. Write it again with less compression, or give it as CSV."
    )


TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_NOT_A_NUMBER = ("nan", "<na>", "nat")
"""Texts that data frames write for a missing number, in lower case."""


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as dictionaries by column name."""
    suffix = path.suffix.lower()
    with readable(path, "Save it as a table in UTF-8."):
        if suffix == ".parquet":
            with open_regular(path) as (file, _):
                for batch in parquet_batches(file, path, lambda names: _check_columns(path, names)):
                    yield from batch.to_pylist()
        elif suffix == ".jsonl":
            yield from _json_lines(path)
        else:
            with open_lines(path, newline="") as lines:
                heading = next(lines, "")
                # Excel writes semicolons where the decimal point is a comma.
                between = "\t" if suffix == ".tsv" else next((c for c in ",;\t" if c in heading), ",")
                yield from _separated(path, csv.reader(chain([heading], lines), delimiter=between, strict=True))


def cell_text(value: Any, where: str) -> str:
    """Return a value as text; empty if it is missing."""
    if value is None:
        return ""
    odd = isinstance(value, float) and not math.isfinite(value)
    if odd or (isinstance(value, str) and value.strip().lower() in _NOT_A_NUMBER):
        raise DataError(
            f"{where} must be a name, got {str(value)!r}, which is a missing number. Fill in a name, "
            "or leave it empty to skip the row."
        )
    if isinstance(value, list | dict | bytes | tuple | set):
        raise DataError(f"{where} must be a text or a number, got a {type(value).__name__}.")
    if isinstance(value, str) and "\0" in value:
        raise DataError(f"{where} has a NUL character, which no name has. Remove it, or export the table again.")
    return str(value)


def plain_text(row: Mapping[str, Any], column: str | None) -> str | None:
    """Return a value as text; ``None`` if it is missing, empty or NaN."""
    value = None if column is None else row.get(column)
    return None if value is None or value != value else str(value).strip() or None


def whole_numbers(names: Sequence[str]) -> list[str]:
    """Remove ``.0`` from names if all names are integers; data frames add ``.0`` to columns with missing values.

    >>> whole_numbers(["3.0", "12.0"]), whole_numbers(["3.0", "2.5"]), whole_numbers(["3.0", "moss"])
    (['3', '12'], ['3.0', '2.5'], ['3.0', 'moss'])
    """
    found = [re.fullmatch(r"(-?\d+)(\.0+)?", name.strip()) for name in names]
    whole = [match[1] for match in found if match]
    return whole if len(whole) == len(names) and any(match and match[2] for match in found) else list(names)


MOST_COLUMNS = 10_000


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if len(columns) > MOST_COLUMNS:
        raise DataError(
            f"{path} has {len(columns):,} columns, more than {MOST_COLUMNS:,}. Keep those of pictures and labels."
        )
    twice = first_repeated(name for name in columns if name.strip())
    if twice is not None:
        places = [str(i) for i, name in enumerate(columns, start=1) if name == twice]
        raise DataError(
            f"Column names must differ, but {path} has {len(places)} columns {twice!r} (columns "
            f"{', '.join(places)}). Rename or remove one."
        )


def _separated(path: Path, lines: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or TSV file, after a check that each has as many values as there are columns."""
    number = 0
    try:
        columns = next(lines, None)
        if columns is None:
            return
        _check_columns(path, columns)
        for cells in lines:
            if cells:
                number += 1
                yield _row(f"{path}, row {number} (line {lines.line_num}),", columns, cells)
    except csv.Error as error:
        raise DataError(
            f"{path}, row {number + 1}, cannot be read: {error}. Close every quote, and write quotes inside text twice."
        ) from error


def _row(where: str, columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """Return a row by column name; missing headings and missing values must be empty."""
    row: dict[str, Any] = {}
    for name, cell in zip_longest(columns, cells):
        if (name is None and cell.strip()) or (cell is None and name.strip()):
            raise DataError(
                f"{where} must have {len(columns)} values, one per column, got {len(cells)}. Put values "
                "with commas into quotes, and keep empty values."
            )
        if name is not None:
            row[name] = None if cell is None else from_spreadsheet(cell)
    return row


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with open_lines(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number},"
            try:
                row = json_value(line, lambda pairs, where=where: _once(pairs, where))  # type: ignore[misc]
            except DataError:
                raise
            except ValueError as error:
                said = getattr(error, "msg", str(error))
                raise DataError(f"{where} is not valid JSON: {said}. Write one object per line.") from error
            if not isinstance(row, dict):
                raise DataError(f"{where} must be a JSON object.")
            yield row


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    if (twice := first_repeated(name for name, _ in pairs)) is not None:
        raise DataError(f"{where} has the key {twice!r} twice. Remove one.")
    return dict(pairs)


def no_column(path: object, name: str, columns: Iterable[str], what: str = "") -> DataError:
    """Return the error for a missing column."""
    there = sorted(map(str, columns))
    near = nearest(name, there)
    meant = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(map(repr, there))}."
    return DataError(f"{path} has no column {name!r}{what}. {meant}")


IMAGE_COLUMNS = ("image", "img", "picture", "pixel_values", "file", "path")
LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "target")
TEXT_COLUMNS = ("text", "texts", "caption", "captions", "sentence", "sentences", "title", "description", "txt")
LOOKED_AT = 50
"""Number of rows from which the column names are collected."""


@dataclass(frozen=True)
class Columns:
    """Names of columns; ``None`` or an empty tuple to find them automatically."""

    image: str | None = None
    texts: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None

    def belonging(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return a row's class and group as fields of a sample."""
        label = "" if self.label is None else cell_text(row.get(self.label), f"{where}, {self.label!r},")
        return {"label": label.strip(), "group": plain_text(row, self.group)}

    def texts_of(self, row: Mapping[str, Any], where: str) -> list[str]:
        """Return a row's texts; a value may be a list of texts."""
        return [text for c in self.texts for text in texts_in(row.get(c), f"{where}, column {c!r},")]


def choose(wanted: Columns, rows: Sequence[Mapping[str, Any]], where: str) -> Columns:
    """Return the columns of a table: the given names, otherwise the usual names."""
    names = list(dict.fromkeys(str(name) for row in rows[:LOOKED_AT] for name in row))
    for name in (wanted.image, *wanted.texts, wanted.label, wanted.group):
        if name is not None and name not in names:
            raise no_column(where, name, names)
    image = wanted.image or _usual(names, IMAGE_COLUMNS, "pictures", "--column image", where)
    texts = wanted.texts or _text_columns([n for n in names if n not in (image, wanted.group)], where)
    label = wanted.label or ("label" if "label" in names and "label" not in texts else None)
    return Columns(image, texts, label, wanted.group)


def _usual(names: Sequence[str], usual: Sequence[str], what: str, option: str, where: str) -> str:
    folded = {name.casefold(): name for name in reversed(names)}
    if found := next((folded[u] for u in usual if u in folded), None):
        return found
    near = next((m for u in usual[:4] for m in nearest(u, names)), None)
    meant = f" Did you mean {near!r}?" if near else ""
    raise DataError(
        f"{where} has no column of {what} among {', '.join(map(repr, names))}.{meant} Rename a "
        f"column to {usual[0]!r}, or name it with {option}."
    )


def _text_columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the usual column of texts, or numbered ones (caption_0, caption_1, …)."""
    for usual in TEXT_COLUMNS:
        numbered = [n for n in names if re.fullmatch(rf"{usual}[_ -]?\d+", n.casefold())]
        if numbered and usual not in (n.casefold() for n in names):
            return tuple(numbered)
    return (_usual(names, TEXT_COLUMNS, "texts", "--column text", where),)


def texts_in(value: Any, where: str) -> list[str]:
    """Return the texts of a value: one text, a list of texts, or a list of COCO annotations."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        plain = [one.get("raw", one.get("caption", one)) if isinstance(one, dict) else one for one in value]
        return [t for one in plain for t in texts_in(one, where)]
    if value is None or value != value:  # NaN differs from itself
        return []
    if not isinstance(value, str):
        raise DataError(
            f"{where} must be a text or a list of texts, got {value!r}. Correct it, or name another column."
        )
    return [value]


def opened(source: Any) -> tuple[Any, dict[str, Any]] | None:
    """Return a table in memory with plain values, and its columns by name; ``None`` if ``source`` is not a table."""
    names = getattr(source, "column_names", None)
    names = getattr(source, "columns", None) if names is None else names
    parts = source if isinstance(source, Mapping) and any(hasattr(p, "column_names") for p in source.values()) else ()
    if isinstance(names, Mapping) or parts:
        splits = ", ".join(map(repr, names if isinstance(names, Mapping) else parts))
        raise InputError(f"The data set must be one split, got the splits {splits}. Select one by its name.")
    if names is None or not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        return None
    form = getattr(source, "format", None)
    if isinstance(form, Mapping) and form.get("type") not in (None, "custom"):
        source = source.with_format(None)
    columns = {str(name): name for name in names}
    if len(columns) < len(names):
        twice = next(name for name in columns if sum(str(one) == name for one in names) > 1)
        raise DataError(f"Column names must differ, but {twice!r} occurs twice. Rename or drop one.")
    return source, columns


def columns_with(source: Any, columns: Mapping[str, Any], what: Literal["pictures", "labels"]) -> list[str]:
    """Return the columns of a table in memory that have the pictures or the labels, by their features or names."""
    kind, usual = ("Image", IMAGE_COLUMNS) if what == "pictures" else ("ClassLabel", LABEL_COLUMNS)
    features = getattr(source, "features", None) or {}
    return [c for c in columns if type(features.get(c)).__name__ == kind] or [c for c in usual if c in columns]


def column_with(source: Any, columns: Mapping[str, Any], what: Literal["pictures", "labels"]) -> str:
    """Return the first of the columns with the pictures or the labels."""
    if found := columns_with(source, columns, what):
        return found[0]
    usual = (IMAGE_COLUMNS if what == "pictures" else LABEL_COLUMNS)[0]
    also = f", or give labels=table[{[*columns][-1]!r}]" if what == "labels" else ""
    raise DataError(
        f"None of the columns {', '.join(map(repr, columns))} has the {what}. Rename that column to {usual!r}{also}."
    )


def pictures_in(source: Any, columns: Mapping[str, Any]) -> Iterable[Any]:
    """Return the pictures of a table in memory: its only column, or the one with the pictures."""
    column = next(iter(columns.values())) if len(columns) == 1 else columns[column_with(source, columns, "pictures")]
    if hasattr(source, "features"):  # Hugging Face decodes a picture when its row is read
        return (source[i][column] for i in range(len(source)))
    return list(source[column])
