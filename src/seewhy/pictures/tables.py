"""Rows of tables (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``), read so that nothing slips into another column.

What a spreadsheet or a data frame does to names on the way is undone where that is safe, and refused where it is not:
an apostrophe before a sign that begins a formula is taken away, whole numbers that a gap in their column turned into
``3.0`` are whole again, and a number that is none (NaN) is named with its row.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..printable import from_spreadsheet
from ..spelling import first_repeated
from ..storage.files import json_value
from ..storage.reading import open_lines, open_regular, reason
from .parquet import parquet_batches

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_NOT_A_NUMBER = ("nan", "<na>", "nat")
"""What data frames write where a number is missing; in lower case."""
_WHOLE = re.compile(r"-?\d+\.0+")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table by the names of its columns."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix == ".jsonl":
            yield from _json_lines(path)
        else:
            with open_lines(path, newline="") as file:
                yield from _separated(path, csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. Give a table in UTF-8.") from error


def cell_text(value: Any, where: str) -> str:
    """A cell as text; empty where there is none."""
    if value is None:
        return ""
    odd = isinstance(value, float) and not math.isfinite(value)
    if odd or (isinstance(value, str) and value.strip().lower() in _NOT_A_NUMBER):
        raise DataError(
            f"{where} holds {str(value)!r}, which stands for a missing number. A name was expected. "
            "Fill the cell in, or leave it empty to leave the row out."
        )
    if isinstance(value, list | dict | bytes | tuple | set):
        raise DataError(f"{where} holds a {type(value).__name__}. A name or a number was expected. Write one value.")
    return str(value)


def whole_numbers(names: Sequence[str]) -> list[str]:
    """The names; where all are whole numbers written with a point, without it, as a gap in their column added it.

    >>> whole_numbers(["3.0", "12.0"]), whole_numbers(["3.0", "2.5"]), whole_numbers(["3.0", "moss"])
    (['3', '12'], ['3.0', '2.5'], ['3.0', 'moss'])
    """
    pointed = [_WHOLE.fullmatch(name.strip()) is not None for name in names]
    plain = [re.fullmatch(r"-?\d+", name.strip()) is not None for name in names]
    if any(pointed) and all(a or b for a, b in zip(pointed, plain, strict=True)):
        return [name.strip().partition(".")[0] for name in names]
    return list(names)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    twice = [name for name, n in Counter(columns).items() if n > 1 and name.strip()]
    if twice:
        places = [str(i) for i, name in enumerate(columns, start=1) if name == twice[0]]
        raise DataError(
            f"{path}, row of headings, names {twice[0]!r} {len(places)} times (columns {', '.join(places)}). "
            "Every name once was expected. Rename or remove one."
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
            if not cells:
                continue
            number += 1
            yield _row(path, number, lines.line_num, columns, cells)
    except csv.Error as error:
        raise DataError(
            f"{path}, row {number + 1}, cannot be read: {error}. Close every quote, and write quotes inside text twice."
        ) from error


def _row(path: Path, number: int, line: int, columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """One row by name; cells without a heading, and headings without a cell, may only be empty ones."""
    row: dict[str, Any] = {}
    for name, cell in zip_longest(columns, cells):
        if (name is None and cell.strip()) or (cell is None and name.strip()):
            raise DataError(
                f"{path}, row {number} (line {line}), has {len(cells)} cells, and there are {len(columns)} columns. "
                "One cell for each column was expected. Put names with commas into quotes, and keep empty cells."
            )
        if name is not None:
            row[name] = None if cell is None else from_spreadsheet(cell)
    return row


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with open_lines(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue

            def once(pairs: list[tuple[str, Any]], number: int = number) -> dict[str, Any]:
                if (twice := first_repeated(name for name, _ in pairs)) is not None:
                    raise DataError(
                        f"{path}, line {number}, names {twice!r} twice. Every name once was expected. Remove one."
                    )
                return dict(pairs)

            try:
                row = json_value(line, once)
            except DataError:
                raise
            except ValueError as error:
                said = getattr(error, "msg", str(error))
                raise DataError(f"{path}, line {number}, is not JSON: {said}. Write one object a line.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}, is not an object. Write one object a line.")
            yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    with open_regular(path) as (file, _):
        for batch in parquet_batches(file, path, lambda names: _check_columns(path, names)):
            yield from batch.to_pylist()
