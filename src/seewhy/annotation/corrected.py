"""The corrected table: as the data are, with what people decided; the data themselves are only read."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..encoders.stream import file_digest
from ..errors import DataError
from ..pictures.samples import Sample
from ..pictures.tables import TABLES, rows_of
from ..printable import spreadsheet_safe
from ..storage.marks import Columns
from ..storage.output import check_file, write
from .labels import KEY

ADDED = ("label_before", "decision", "decided_by", "decided_at")
MENDING = ("corrected", "confirmed")
"""Decisions whose label counts, for copies of the picture too."""
MARK = Columns((), frozenset(ADDED))


def check_corrected(path: Path, force: bool) -> Path:
    """The path, if a corrected table can be written there.

    Raises:
        DataError: another ending than .csv, or as for writing.
        ForeignFileError: there is a file that SeeWhy did not make.
    """
    if path.suffix.lower() != ".csv":
        raise DataError(f"A corrected table is written as .csv, not as {path.suffix!r}. Change the ending of {path}.")
    return check_file(path, MARK, force=force)


def write_corrected(
    path: Path,
    data: Path,
    items: Sequence[Sample],
    decisions: Mapping[str, Mapping[str, Any]],
    image: str = "image",
    label: str = "label",
    *,
    force: bool = False,
) -> dict[str, int]:
    """Write the data with the decisions on their labels as a table, its pictures named from where it lies.

    Args:
        path: where, .csv.
        data: class folders or a table.
        items: its pictures with their labels.
        decisions: a picture's key → what stands.
        image, label: columns of the table.
        force: write over somebody else's file.

    Returns:
        How many rows were corrected, confirmed and left out, and how many there are.
    """
    count = dict.fromkeys(("corrected", "confirmed", "dropped", "later"), 0)
    rows = list(_rows(data, items, image, label))
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ADDED))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *ADDED])
    n = 0
    for row in rows:
        place = data.parent / str(row[image] or "") if data.is_file() else Path(str(row[image]))
        digest = file_digest(place)
        found = decisions.get(digest[:KEY]) if digest else None
        decision = found["decision"] if found else ""
        if decision in count:
            count[decision] += 1
        if decision == "dropped":
            continue
        before = row[label]
        made = (before, decision, found["author"], found["made"]) if found and decision in count else ("", "", "", "")
        mended = found["label"] if found and decision in MENDING else before
        named = os.path.relpath(place, path.parent) if str(row[image] or "").strip() else row[image]
        row = {**row, image: named, label: mended}
        writer.writerow([*(_cell(row.get(name)) for name in columns), *map(_cell, made)])
        n += 1
    write(path, text.getvalue(), MARK, force=force)
    return {**count, "n": n}


def _rows(data: Path, items: Sequence[Sample], image: str, label: str) -> Iterator[dict[str, Any]]:
    if data.is_file() and data.suffix.lower() in TABLES:
        yield from rows_of(data)
    else:
        yield from ({image: s.image, label: s.label} for s in items)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return spreadsheet_safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
