"""What a study has measured so far: one JSON line a number, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..storage.journal import Journal
from ..storage.marks import Lines, Record

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

PROGRESS = "progress.jsonl"
NUMBERS = Lines(
    (
        Record(("key", "image", "digest", "class", "method"), None),
        Record(("key", "right", "curve")),
        Record(("key", "right", "kept"), None),
        Record(("key", "values", "cell")),
    )
)
ANY = Lines((Record(("key",), None),))
"""Records of a study of one's own: what is behind the key is free."""


class StudyRecords:
    """An append-only file of records, each with a ``key``.

    A line cut short by a kill is passed over, and measured again.

    Args:
        path: the file; made with the first record.
        form: what the records look like; each begins with its ``key``.
    """

    def __init__(self, path: Path, form: Lines = NUMBERS) -> None:
        self.path = path
        try:
            self._journal = Journal(path, form, force=None)
        except OSError as error:
            raise self._problem(error) from error
        self.done = {row["key"]: row for row in self._journal.rows}

    def _problem(self, error: OSError) -> DataError:
        return DataError(f"{self.path} cannot be written: {error}. Give another folder with -o.")

    def add(self, row: dict[str, Any]) -> None:
        """Note a record; after this call it survives a kill of the process."""
        self.done[row["key"]] = row
        try:
            self._journal.add(row)
        except OSError as error:
            raise self._problem(error) from error

    def __enter__(self) -> StudyRecords:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._journal.close()


class _Forgotten:
    """Records of a study without a folder: they end with it."""

    def __init__(self) -> None:
        self.done: dict[str, dict[str, Any]] = {}

    def add(self, row: dict[str, Any]) -> None:
        self.done[row["key"]] = row

    def __enter__(self) -> _Forgotten:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def cell_records(folder: Path | None) -> StudyRecords | _Forgotten:
    """Numbers that were measured: in a file where there is a folder, else only as long as the study runs."""
    return _Forgotten() if folder is None else StudyRecords(folder / PROGRESS)


def model_digest(classifier: Classifier) -> str:
    """What decides a number beside the picture and what is asked of it."""
    encoder, head = classifier.encoder, classifier.head
    digest = hashlib.sha256(f"{encoder.fingerprint}|{encoder.engine.precision}|{classifier.classes}".encode())
    for tensor in (head.weight, head.bias):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
