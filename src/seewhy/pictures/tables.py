"""Tables and Parquet, read so that nothing slips into another column, and which columns hold what."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

from ..errors import DataError, MissingExtraError
from ..printable import from_spreadsheet
from ..spelling import first_repeated, nearest
from ..storage.reading import json_value, open_lines, open_regular, reason

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
    """The rows as pyarrow record batches."""
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
        raise DataError(f"{where} cannot be read: {reason(error)}. Expected a Parquet file. Write it again.") from error


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
            raise DataError(f"{where} has lists of categories. Expected lists of texts. Write them as texts.")
    return column


def _bomb(where: PurePath, size: int, what: str) -> DataError:
    return DataError(
        f"{where} has {size:,} bytes, which unpack to {what}. Expected a table that does not grow so much. Write it "
        "again, or give it as CSV."
    )


TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_NOT_A_NUMBER = ("nan", "<na>", "nat")
"""What data frames write where a number is missing; in lower case."""


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table as dictionaries from column name to value."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            with open_regular(path) as (file, _):
                for batch in parquet_batches(file, path, lambda names: _check_columns(path, names)):
                    yield from batch.to_pylist()
        elif suffix == ".jsonl":
            yield from _json_lines(path)
        else:
            with open_lines(path, newline="") as lines:
                yield from _separated(path, csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {reason(error)}. Expected a table in UTF-8. Save it as UTF-8."
        ) from error


def cell_text(value: Any, where: str) -> str:
    """A cell as text; empty if the cell is missing."""
    if value is None:
        return ""
    odd = isinstance(value, float) and not math.isfinite(value)
    if odd or (isinstance(value, str) and value.strip().lower() in _NOT_A_NUMBER):
        raise DataError(
            f"{where} holds {str(value)!r}, which stands for a missing number. Expected a name. Fill the cell in, or "
            "empty it to leave the row out."
        )
    if isinstance(value, list | dict | bytes | tuple | set):
        raise DataError(f"{where} holds a {type(value).__name__}. Expected a name or a number. Write one value.")
    return str(value)


def plain_text(row: Mapping[str, Any], column: str | None) -> str | None:
    """A cell as text; ``None`` if the cell is missing or NaN."""
    value = None if column is None else row.get(column)
    return None if value is None or value != value else str(value).strip() or None


def whole_numbers(names: Sequence[str]) -> list[str]:
    """The names; if all are whole numbers written with a decimal point, which a gap in their column adds, without it.

    >>> whole_numbers(["3.0", "12.0"]), whole_numbers(["3.0", "2.5"]), whole_numbers(["3.0", "moss"])
    (['3', '12'], ['3.0', '2.5'], ['3.0', 'moss'])
    """
    found = [re.fullmatch(r"(-?\d+)(\.0+)?", name.strip()) for name in names]
    whole = [match[1] for match in found if match]
    return whole if len(whole) == len(names) and any(match and match[2] for match in found) else list(names)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    twice = first_repeated(name for name in columns if name.strip())
    if twice is not None:
        places = [str(i) for i, name in enumerate(columns, start=1) if name == twice]
        raise DataError(
            f"{path} has {len(places)} columns called {twice!r} (columns {', '.join(places)}). Expected every name "
            "once. Rename or remove one."
        )


def _separated(path: Path, lines: Any) -> Iterator[dict[str, Any]]:
    """Rows whose quotes are closed and whose cells are as many as the columns, so that none slips."""
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
    """One row by name; cells without a heading, and headings without a cell, may only be empty ones."""
    row: dict[str, Any] = {}
    for name, cell in zip_longest(columns, cells):
        if (name is None and cell.strip()) or (cell is None and name.strip()):
            raise DataError(
                f"{where} has {len(cells)} cells, but there are {len(columns)} columns. Expected one cell per column. "
                "Put names with commas into quotes, and keep empty cells."
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
                raise DataError(f"{where} is not JSON: {said}. Write one object per line.") from error
            if not isinstance(row, dict):
                raise DataError(f"{where} is not an object. Write one object per line.")
            yield row


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    if (twice := first_repeated(name for name, _ in pairs)) is not None:
        raise DataError(f"{where} names {twice!r} twice. Expected every name once. Remove one.")
    return dict(pairs)


def no_column(path: object, name: str, columns: Iterable[str], what: str = "") -> DataError:
    """The error for a table without a column that was named."""
    there = sorted(map(str, columns))
    near = nearest(name, there)
    meant = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(map(repr, there))}."
    return DataError(f"{path} has no column {name!r}{what}. {meant}")


IMAGE_COLUMNS = ("image", "img", "picture", "pixel_values", "file", "path")
TEXT_COLUMNS = ("text", "texts", "caption", "captions", "sentence", "sentences", "title", "description", "txt")
LOOKED_AT = 50
"""Rows by which the columns are known."""


@dataclass(frozen=True)
class Columns:
    """Names of columns; ``None``, or an empty list, where SeeWhy is to find them."""

    image: str | None = None
    texts: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None

    def belonging(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """A row's class and group; each is empty if the row has none."""
        label = "" if self.label is None else cell_text(row.get(self.label), f"{where}, {self.label!r},")
        return {"label": label.strip(), "group": plain_text(row, self.group)}

    def texts_of(self, row: Mapping[str, Any], where: str) -> list[str]:
        """A row's texts; a cell may hold several."""
        return [text for c in self.texts for text in texts_in(row.get(c), f"{where}, column {c!r},")]


def choose(wanted: Columns, rows: Sequence[Mapping[str, Any]], where: str) -> Columns:
    """The columns of a table, by the given names or the usual ones."""
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
        f"{where} has no column of {what} among {', '.join(map(repr, names))}.{meant} Expected one called "
        f"{usual[0]!r}. Rename yours, or name it with {option}."
    )


def _text_columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    """One by its usual name, or several that are numbered: caption_0, caption_1, …"""
    for usual in TEXT_COLUMNS:
        numbered = [n for n in names if re.fullmatch(rf"{usual}[_ -]?\d+", n.casefold())]
        if numbered and usual not in (n.casefold() for n in names):
            return tuple(numbered)
    return (_usual(names, TEXT_COLUMNS, "texts", "--column text", where),)


def texts_in(value: Any, where: str) -> list[str]:
    """The texts of a cell: one text, a list of texts, or a list of annotations as in COCO."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        plain = [one.get("raw", one.get("caption", one)) if isinstance(one, dict) else one for one in value]
        return [t for one in plain for t in texts_in(one, where)]
    if value is None or value != value:  # NaN is not itself
        return []
    if not isinstance(value, str):
        raise DataError(
            f"{where} holds {value!r}. Expected a text or a list of texts. Correct it, or name another column."
        )
    return [value]
