"""Base of all studies: results with a page, and a journal from which a stopped study continues."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..progress import Progress
from ..report.blocks import Document, closing
from ..report.paging import Page
from ..storage.journal import Journal
from ..storage.marks import Lines, Record

Row = dict[str, Any]
_log = logging.getLogger("seewhy")
PROGRESS = "progress.jsonl"
SUM = "crc"
"""Key of a record's CRC-32, its last."""
_SUM = frozenset({SUM})
NUMBERS = Lines(
    (
        Record(("key", "image", "digest", "class", "method"), None),
        Record(("key", "right", "curve"), _SUM),
        Record(("key", "right", "kept"), None),
        Record(("key", "values", "cell"), _SUM),
        Record(("key", "right", "values"), _SUM),
        Record(("key", "seconds"), _SUM),
        Record(("key", "fits"), _SUM),
    )
)


def _plain(data: Row) -> Document:
    return Document("Findings", data["sentence"], closing(data))


@dataclass(frozen=True, repr=False)
class Findings(Page):
    """The results of a study: ``data`` is the JSON object that docs/json.md describes, and ``page`` builds the page."""

    page: Callable[[Row], Document] = field(default=_plain, compare=False)

    @property
    def sentence(self) -> str:
        return str(self.data["sentence"])

    def document(self) -> Document:
        return self.page(self.data)


def beside(progress: Progress) -> Row:
    """Return notes and failures for the JSON of a study."""
    return {"notes": list(dict.fromkeys(progress.notes)), "failures": [f.to_json() for f in progress.failures]}


def inputs_digest(inputs: Sequence[Any]) -> str:
    """Return a digest of the inputs of a record, for its key."""
    return hashlib.sha256(json.dumps(inputs, default=str).encode()).hexdigest()


def _sum(row: Row) -> int:
    return zlib.crc32(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))


class StudyRecords:
    """A journal of records, each with a ``key`` and a checksum; without a path, records stay in memory.

    Records that do not match their checksum are left out, so they are measured again, and a warning is logged.
    """

    def __init__(self, path: Path | None, form: Lines = NUMBERS) -> None:
        self.path = path
        self._journal = None if path is None else Journal(path, form, force=None)
        rows = [] if self._journal is None else self._journal.rows
        sums = [row.pop(SUM, None) for row in rows]
        whole = [row for row, checksum in zip(rows, sums, strict=True) if checksum == _sum(row)]
        self.done: dict[str, Row] = {row["key"]: row for row in whole}
        if changed := len(rows) - len(whole):
            _log.warning("%s: %d of %d records were changed and are measured again.", path, changed, len(rows))

    def add(self, row: Row) -> None:
        """Write a record to the journal."""
        self.done[row["key"]] = row
        if self._journal is not None:
            self._journal.add({**row, SUM: _sum(row)})

    def row(self, key: str, measure: Callable[[], Row]) -> Row:
        """Return the record with this key, measured now if it is missing."""
        if key not in self.done:
            self.add({"key": key, **measure()})
        return self.done[key]

    def __enter__(self) -> StudyRecords:
        return self

    def __exit__(self, *error: object) -> None:
        if self._journal is not None:
            self._journal.close()


def records_in(folder: str | Path | None) -> StudyRecords:
    return StudyRecords(None if folder is None else Path(folder) / PROGRESS)


def measured(
    cells: Sequence[tuple[Any, ...]],
    key: Callable[..., str],
    measure: Callable[..., Row],
    folder: str | Path | None,
    progress: Progress,
    what: str,
) -> Iterator[tuple[tuple[Any, ...], Row]]:
    """Yield every element of ``cells`` with its record, which is read from the journal or measured now."""
    with records_in(folder) as records:
        for cell in progress.track(cells, what, len(cells)):
            yield cell, records.row(key(*cell), partial(measure, *cell))


def bits(right: Sequence[Any]) -> str:
    """Encode predictions as text: ``1`` for right, ``0`` for wrong and ``-`` for not used."""
    return "".join("-01"[int(value) + 1] for value in right)


def from_bits(text: str) -> list[int]:
    return ["-01".index(sign) - 1 for sign in text]
