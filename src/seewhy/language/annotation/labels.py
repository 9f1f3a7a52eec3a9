"""Decisions on labels, by several people, with undo; and the corrected table: the data with what people decided."""

from __future__ import annotations

import csv
import io
import json
import os
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
from ...pictures.tables import TABLES, rows_of
from ...printable import spreadsheet_safe
from ...spelling import nearest
from ...storage.output import check_apart, check_file, write
from ...studies.inspection.check import digest_of
from .records import DECISIONS, LABEL, OPEN, Content, Picture, Version
from .store import AnnotationStore, Conflict, Saved

KEY = 16
"""Digits of a picture's SHA-256 that name it."""
FILE, NAME = "decisions.sqlite", "corrected.csv"
"""Where decisions lie in the folder that a person named, and what the page calls the corrected table."""
ADDED = ("label_before", "decision", "decided_by", "decided_at")
MENDING = ("corrected", "confirmed")
"""Decisions whose label counts, for copies of the picture too."""
OUTDATED = "outdated"
"""Of a decision on a label that the data no longer give the picture or a copy of it: it is told, and not applied."""


def known_picture(name: str, key: str | None = None) -> Picture:
    """The picture in a file, as the store knows pictures."""
    digest, short = file_digest(name), Path(name).name
    try:
        size = upright_size(name)
    except ImageError as error:
        raise DataError(f"{short} {error.reason}. A picture was expected. Nothing was decided.") from error
    if digest is None or (key is not None and digest[:KEY] != key):
        raise DataError(
            f"{short} has changed since it was looked at. The same picture was expected. Look at the data again; "
            "decisions on other pictures are kept."
        )
    return Picture(digest[:KEY], digest, name, *size)


def open_decisions(folder: Path, classes: Sequence[str], *, new: bool = True) -> LabelDecisions:
    """What people decided, as it is kept in a folder; several processes may have it open."""
    path = folder / FILE
    if not new and not path.is_file():
        raise DataError(
            f"Nothing was decided in {folder}: it has no {FILE}. The folder that decisions are kept in was expected. "
            "Name the one that was given with --decisions, or that of a check."
        )
    return LabelDecisions(AnnotationStore(path), classes)


class LabelDecisions:
    """What people decided on the labels of pictures."""

    def __init__(self, store: AnnotationStore, classes: Sequence[str]) -> None:
        self.store = store
        self.classes = tuple(classes)

    def decide(
        self, picture: Picture, author: str, decision: str, label: str, given: str, base: int
    ) -> Saved | Conflict:
        """Add a decision on top of the one that was seen."""
        if decision not in DECISIONS:
            raise InputError(f"The decision {decision!r:.40} was given. One of {', '.join(DECISIONS)} was expected.")
        if decision == "corrected" and label not in self.classes:
            near = nearest(label, self.classes)
            meant = f"Did you mean {near[0]!r}?" if near else f"The first are {', '.join(self.classes[:5])}."
            raise InputError(
                f"The label {label!r:.80} is of none of the {len(self.classes)} classes. One of them was expected. "
                f"{meant}"
            )
        content: Content = {"decision": decision, "label": label if decision == "corrected" else given, "given": given}
        self.store.add_pictures([picture])
        return self.store.save(picture.key, LABEL, author, content, base, 0.0)

    def undo(self, key: str, author: str, base: int) -> Saved | Conflict:
        """Go back to what was decided before the decision that stands; again, to what was before that."""
        versions = {v.number: v for v in self.store.versions(key, LABEL)}
        latest = versions.get(max(versions, default=0))
        if latest is None or shown(latest) == 0:
            raise InputError(f"Nothing is decided on the picture {key!r:.40}. A decision to undo was expected.")
        earlier = versions.get(shown(latest) - 1)
        back = shown(earlier) if earlier is not None else 0
        was = versions[back].content if back in versions else {**latest.content, "decision": OPEN, "label": ""}
        return self.store.save(key, LABEL, author, {**was, "restores": back}, base, 0.0)

    def standing(self) -> dict[str, dict[str, Any]]:
        """Picture → the decision that stands, with who made it and its number; ``open`` where it was undone."""
        return {key: as_row(tasks[LABEL][-1]) for key, tasks in self.store.histories().items() if tasks.get(LABEL)}

    def history(self, key: str) -> list[dict[str, Any]]:
        """All that was decided on a picture, oldest first."""
        return [as_row(v) for v in self.store.versions(key, LABEL)]


def shown(version: Version) -> int:
    """The version whose content this one shows; 0 where it shows that nothing is decided."""
    back = version.content.get("restores")
    return version.number if back is None else int(back)


def as_row(version: Version) -> dict[str, Any]:
    """A decision for pages and tables."""
    own = {name: version.content[name] for name in ("decision", "label", "given")}
    about = {"author": version.author, "number": version.number, "made": version.made}
    return {**own, **about, "undone": "restores" in version.content}


@dataclass(frozen=True)
class LabelledData:
    """Labelled pictures on the disk, as they were read."""

    path: Path
    items: tuple[Sample, ...]
    image: str = "image"
    label: str = "label"


@dataclass(frozen=True)
class Corrections:
    """Decisions on the labels of some data, for the pages on which they are made."""

    data: LabelledData
    decisions: LabelDecisions

    def table(self) -> str:
        """The corrected table as CSV, to lie beside the data, which must be as they were."""
        data = self.data
        try:
            now = load_samples(data.path, image=data.image, label=data.label).items
        except DataError:
            now = ()
        if digest_of(now) != digest_of(data.items):
            raise DataError(
                f"{data.path.name} is not as it was when this page was started: pictures or labels have changed. The "
                "same names and labels were expected. Start the page anew; what was decided is kept."
            )
        beside = Path(os.path.abspath(data.path)).parent
        return corrected_table(replace(data, items=now), self.decisions.standing(), beside)[0]


def check_corrected(path: Path, data: Path, force: bool) -> Path:
    """The path, if a corrected table can be written there."""
    if path.suffix.lower() != ".csv":
        raise DataError(f"A corrected table is written as .csv, not as {path.suffix!r}. Change the ending of {path}.")
    check_apart(path, [data])
    return check_file(path, force=force)


def write_corrected(
    path: Path, data: LabelledData, decisions: Mapping[str, Mapping[str, Any]], *, force: bool = False
) -> dict[str, int]:
    """Write the data with the decisions on their labels as a table, its pictures named from where it lies."""
    check_corrected(path, data.path, force)
    text, counts = corrected_table(data, decisions, path.parent)
    write(path, text, force=force)
    return counts


def corrected_table(
    data: LabelledData, decisions: Mapping[str, Mapping[str, Any]], folder: Path
) -> tuple[str, dict[str, int]]:
    """The corrected table as CSV with its counts, as for :func:`write_corrected`; ``folder`` is where it will lie."""
    counts = dict.fromkeys((*DECISIONS, OUTDATED, "n"), 0)
    is_table = data.path.is_file() and data.path.suffix.lower() in TABLES
    rows = list(rows_of(data.path)) if is_table else [{data.image: s.image, data.label: s.label} for s in data.items]
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ADDED))
    digest = cache(file_digest)
    bears: dict[str | None, set[str]] = defaultdict(set)
    for sample in data.items:
        bears[digest(sample.image)].add(sample.label)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *ADDED])
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
        if decision == "dropped":
            continue
        made = (before, decision, found["author"], found["made"]) if decision in counts else ("",) * len(ADDED)
        mended = found["label"] if decision in MENDING else before
        row = {**row, data.label: mended, data.image: os.path.relpath(place, folder) if place else row[data.image]}
        writer.writerow([*(_cell(row.get(name)) for name in columns), *map(_cell, made)])
        counts["n"] += 1
    return text.getvalue(), counts


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return spreadsheet_safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
