"""Decisions of several people on labels, with undo, and the corrected table."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ...encoders.stream import file_digest
from ...errors import DataError, ImageError, InputError
from ...pictures.images import upright_size
from ...pictures.samples import Sample, load_samples
from ...pictures.sources import is_unicode
from ...pictures.tables import TABLES, rows_of
from ...printable import csv_row, spreadsheet_safe
from ...spelling import nearest
from ...storage.output import check_apart, check_file, write
from ...studies.inspection.check import digest_of
from .records import DECISIONS, LABEL, OPEN, Content, Picture, Version
from .store import AnnotationStore, Conflict

KEY = 16
"""Number of SHA-256 digits in a picture's key."""
FILE, NAME = "decisions.sqlite", "corrected.csv"
"""File names of the decisions and of the corrected table."""
ADDED = ("label_before", "decision", "decided_by", "decided_at")
MENDING = ("changed", "kept")
"""Decisions that set the label of a picture and of its copies."""
OUTDATED = "outdated"
"""A decision on a label that the data no longer have; it is reported but not applied."""


def known_picture(name: str, key: str | None = None) -> Picture:
    """Return the picture of a file for the store; raise ``DataError`` if it has changed."""
    digest, short = file_digest(name), Path(name).name
    if not is_unicode(name):
        raise DataError(f"{short!r} has a name that is not UTF-8. Rename the file, and start the page again.")
    try:
        size = upright_size(name)
    except ImageError as error:
        raise DataError(f"{short} {error.reason}. Repair the file, then decide again.") from error
    if digest is None or (key is not None and digest[:KEY] != key):
        raise DataError(
            f"{short} has changed since the page was started. Start the page again; decisions on other pictures are "
            "kept."
        )
    return Picture(digest[:KEY], digest, name, *size)


def open_decisions(folder: Path, classes: Sequence[str], *, new: bool = True) -> LabelDecisions:
    """Open the decisions in a folder."""
    path = folder / FILE
    if not new and not path.is_file():
        raise DataError(f"{folder} has no {FILE}. Give the folder of --decisions or of a check.")
    return LabelDecisions(AnnotationStore(path), classes)


class LabelDecisions:
    """A store of decisions on the labels of pictures."""

    def __init__(self, store: AnnotationStore, classes: Sequence[str]) -> None:
        self.store = store
        self.classes = tuple(classes)
        self._lock = threading.Lock()
        self._standing: dict[str, dict[str, Any]] = {}
        self._last = 0
        """The row of the last version that is in ``_standing``."""

    def decide(
        self, picture: Picture, author: str, decision: str, label: str, given: str, base: int
    ) -> Version | Conflict:
        """Save a decision, unless there is a newer one than number ``base``."""
        if decision not in DECISIONS:
            raise InputError(f"The decision must be one of {', '.join(DECISIONS)}, got {decision!r:.40}.")
        if decision == "changed" and label not in self.classes:
            near = nearest(label, self.classes)
            meant = f"Did you mean {near[0]!r}?" if near else f"The first are {', '.join(self.classes[:5])}."
            raise InputError(f"The label must be one of {len(self.classes)} classes, got {label!r:.80}. {meant}")
        if decision == "kept" and not given:
            raise DataError(f"{Path(picture.name).name} has no label to keep. Give it a label.")
        content: Content = {"decision": decision, "label": label if decision == "changed" else given, "given": given}
        self.store.add_pictures([picture])
        return self.store.save(picture.key, LABEL, author, content, base, 0.0)

    def undo(self, key: str, author: str, base: int) -> Version | Conflict:
        """Restore the decision before the current one."""
        versions = {v.number: v for v in self.store.versions(key, LABEL)}
        latest = versions.get(max(versions, default=0))
        if latest is None or shown(latest) == 0:
            raise DataError("This picture has no decision to undo. Decide on it first.")
        earlier = versions.get(shown(latest) - 1)
        back = shown(earlier) if earlier is not None else 0
        was = versions[back].content if back in versions else {**latest.content, "decision": OPEN, "label": ""}
        return self.store.save(key, LABEL, author, {**was, "restores": back}, base, 0.0)

    def standing(self) -> dict[str, dict[str, Any]]:
        """Return the current decision by picture; only versions that are new since the last call are read."""
        with self._lock:
            for row, key, version in self.store.versions_after(self._last, LABEL):
                self._standing[key], self._last = as_row(version), row
            return dict(self._standing)

    def history(self, key: str) -> list[dict[str, Any]]:
        """Return all decisions on a picture, oldest first."""
        return [as_row(v) for v in self.store.versions(key, LABEL)]


def shown(version: Version) -> int:
    """Return the number of the version that this version restores, or else the number of this version."""
    back = version.content.get("restores")
    return version.number if back is None else int(back)


def as_row(version: Version) -> dict[str, Any]:
    """Return a decision as a dictionary, with its author and time."""
    own = {name: version.content[name] for name in ("decision", "label", "given")}
    about = {"author": version.author, "number": version.number, "made": version.made}
    return {**own, **about, "undone": "restores" in version.content}


@dataclass(frozen=True)
class LabelledData:
    """Labelled pictures with the folder or table that they were read from, and unlabelled pictures."""

    path: Path
    items: tuple[Sample, ...]
    image: str = "image"
    label: str = "label"
    unlabelled: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class Corrections:
    """Labelled data and the decisions on their labels."""

    data: LabelledData
    decisions: LabelDecisions

    def table(self) -> str:
        """Return the corrected table as CSV; raise ``DataError`` if the data have changed."""
        data = self.data
        try:
            now = load_samples(data.path, image=data.image, label=data.label).items
        except DataError:
            now = ()
        if digest_of(now) != digest_of(data.items):
            raise DataError(
                f"Pictures or labels of {data.path.name} have changed since this page was started. Start the page "
                "again; all decisions are kept."
            )
        beside = Path(os.path.abspath(data.path)).parent
        return corrected_table(replace(data, items=now), self.decisions.standing(), beside)[0]


def check_corrected(path: Path, data: Path, force: bool) -> Path:
    """Check that a corrected table can be written to a path, and return the path."""
    if path.suffix.lower() != ".csv":
        raise DataError(f"The name of a corrected table must end in .csv, got {path}.")
    check_apart(path, [data])
    return check_file(path, force=force)


def write_corrected(
    path: Path, data: LabelledData, decisions: Mapping[str, Mapping[str, Any]], *, force: bool = False
) -> dict[str, int]:
    """Write the corrected table, with file names relative to its folder, and return its counts."""
    check_corrected(path, data.path, force)
    text, counts = corrected_table(data, decisions, path.parent)
    write(path, text, force=force)
    return counts


def corrected_table(
    data: LabelledData, decisions: Mapping[str, Mapping[str, Any]], folder: Path
) -> tuple[str, dict[str, int]]:
    """Return the corrected table as CSV, with file names relative to ``folder``, and its counts."""
    counts = dict.fromkeys((*DECISIONS, OUTDATED, "n"), 0)
    is_table = data.path.is_file() and data.path.suffix.lower() in TABLES
    rows = list(rows_of(data.path)) if is_table else [{data.image: s.image, data.label: s.label} for s in data.items]
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ADDED))
    digest = cache(file_digest)
    bears: dict[str | None, set[str]] = defaultdict(set)
    for sample in data.items:
        bears[digest(sample.image)].add(sample.label)
    rows += [
        {data.image: os.path.abspath(s.image), data.label: ""} for s in data.unlabelled
        if digest(s.image) not in bears  # a copy of a labelled picture
        and decisions.get((digest(s.image) or "")[:KEY], {}).get("decision") == "changed"
    ]  # fmt: skip
    lines = [csv_row([*columns, *ADDED])]
    for row in rows:
        name, before = str(row[data.image] or ""), row[data.label]
        place = "" if not name.strip() else str(data.path.parent / name) if data.path.is_file() else name
        its = digest(place) if place else None
        found = decisions.get(its[:KEY], {}) if its else {}
        decision = found.get("decision", OPEN)
        labels = bears.get(its, set())
        if decision != OPEN and labels and found["given"] not in labels and labels != {found["label"]}:
            decision = OUTDATED
        if decision in counts:
            counts[decision] += 1
        if decision == "left_out":
            continue
        check_listable(place)
        made = (before, decision, found["author"], found["made"]) if decision in counts else ("",) * len(ADDED)
        mended = found["label"] if decision in MENDING else before
        row = {**row, data.label: mended, data.image: os.path.relpath(place, folder) if place else row[data.image]}
        lines.append(csv_row([*(_cell(row.get(name)) for name in columns), *map(_cell, made)]))
        counts["n"] += 1
    return "".join(lines), counts


def check_listable(name: str) -> None:
    """Raise ``DataError`` if a table cannot hold the name of a file."""
    if not is_unicode(name):
        raise DataError(
            f"{Path(name).name!r} has a name that is not UTF-8, which a table cannot hold. Rename the file; decisions "
            "on it are kept."
        )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return spreadsheet_safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
