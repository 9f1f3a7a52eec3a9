"""The corrected table: as the data are, with what people decided; the data themselves are only read."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...encoders.stream import file_digest
from ...errors import DataError
from ...pictures.samples import Sample, load_samples
from ...pictures.tables import TABLES, rows_of
from ...printable import spreadsheet_safe
from ...storage.marks import TABLE
from ...storage.output import check_apart, check_file, write
from ...studies.inspection.check import digest_of
from .labels import KEY, LabelDecisions
from .records import DECISIONS, OPEN

ADDED = ("label_before", "decision", "decided_by", "decided_at")
MENDING = ("corrected", "confirmed")
"""Decisions whose label counts, for copies of the picture too."""
OUTDATED = "outdated"
"""Of a decision on a label that the data no longer give the picture or a copy of it: it is told, and not applied."""
NAME = "corrected.csv"

Decided = Callable[[str], tuple[str, Mapping[str, Any]]]
"""A picture's file → what counts for it (:data:`~seewhy.language.annotation.records.OPEN`: nothing), and the decision.
"""


@dataclass(frozen=True)
class LabelledData:
    """Labelled pictures on the disk, as they were read.

    Attributes:
        path: class folders or a table.
        items: its pictures with their labels.
        image, label: columns of the table.
    """

    path: Path
    items: tuple[Sample, ...]
    image: str = "image"
    label: str = "label"

    def read_again(self) -> LabelledData:
        """The same, as it now is."""
        try:
            now = load_samples(self.path, image=self.image, label=self.label).items
        except DataError:
            now = ()
        if digest_of(now) != digest_of(self.items):
            raise DataError(
                f"{self.path.name} is not as it was when this page was started: pictures or labels have changed. The "
                "same names and labels were expected. Start the page anew; what was decided is kept."
            )
        return LabelledData(self.path, now, self.image, self.label)


@dataclass(frozen=True)
class Corrections:
    """Decisions on the labels of some data, for the pages on which they are made.

    Attributes:
        data: as they were when the page was started.
        decisions: on them; there may be others.
    """

    data: LabelledData
    decisions: LabelDecisions

    def table(self) -> str:
        """The corrected table as CSV, to lie beside the data.

        Raises:
            DataError: the data have changed since.
        """
        beside = Path(os.path.abspath(self.data.path)).parent
        return corrected_table(self.data.read_again(), self.decisions.standing(), beside)[0]


def check_corrected(path: Path, data: Path, force: bool) -> Path:
    """The path, if a corrected table can be written there."""
    if path.suffix.lower() != ".csv":
        raise DataError(f"A corrected table is written as .csv, not as {path.suffix!r}. Change the ending of {path}.")
    check_apart(path, [data])
    return check_file(path, TABLE, force=force)


def write_corrected(
    path: Path, data: LabelledData, decisions: Mapping[str, Mapping[str, Any]], *, force: bool = False
) -> dict[str, int]:
    """Write the data with the decisions on their labels as a table, its pictures named from where it lies."""
    check_corrected(path, data.path, force)
    text, counts = corrected_table(data, decisions, path.parent)
    write(path, text, TABLE, force=force)
    return counts


def corrected_table(
    data: LabelledData, decisions: Mapping[str, Mapping[str, Any]], folder: Path
) -> tuple[str, dict[str, int]]:
    """The corrected table as CSV with its counts, as for :func:`write_corrected`; ``folder`` is where it will lie."""
    counts = dict.fromkeys((*DECISIONS, OUTDATED), 0)
    rows = list(_rows(data))
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ADDED))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *ADDED])
    n, decided = 0, _decided(data, decisions)
    for row in rows:
        place = _place(data, row)
        decision, found = decided(place)
        if decision in counts:
            counts[decision] += 1
        if decision == "dropped":
            continue
        before = row[data.label]
        made = (before, decision, found["author"], found["made"]) if decision in counts else ("",) * len(ADDED)
        mended = found["label"] if decision in MENDING else before
        row = {**row, data.label: mended, data.image: os.path.relpath(place, folder) if place else row[data.image]}
        writer.writerow([*(_cell(row.get(name)) for name in columns), *map(_cell, made)])
        n += 1
    return text.getvalue(), {**counts, "n": n}


def _decided(data: LabelledData, decisions: Mapping[str, Mapping[str, Any]]) -> Decided:
    """Finds the decisions of pictures; those that are outdated are called so."""
    digest = cache(file_digest)
    bears: dict[str | None, set[str]] = defaultdict(set)
    for sample in data.items:
        bears[digest(sample.image)].add(sample.label)

    def decided(place: str) -> tuple[str, Mapping[str, Any]]:
        its = digest(place) if place else None
        found = decisions.get(its[:KEY]) if its else None
        if found is None:
            return OPEN, {}
        labels = bears.get(its, set())
        known = not labels or found["given"] in labels or labels == {found["label"]}
        return found["decision"] if known or found["decision"] == OPEN else OUTDATED, found

    return decided


def _rows(data: LabelledData) -> Iterator[dict[str, Any]]:
    if data.path.is_file() and data.path.suffix.lower() in TABLES:
        yield from rows_of(data.path)
    else:
        yield from ({data.image: s.image, data.label: s.label} for s in data.items)


def _place(data: LabelledData, row: Mapping[str, Any]) -> str:
    """The file of a row's picture; empty where it names none."""
    name = str(row[data.image] or "")
    if not name.strip():
        return ""
    return str(data.path.parent / name) if data.path.is_file() else name


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return spreadsheet_safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
