"""Pictures with texts from tables, JSONL, folders, WebDataset shards, data frames and Hugging Face data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..bounds import article
from ..errors import DataError, InputError
from ..storage.reading import read_text, readable
from .datasets import column_of, fetched, sample_of
from .samples import Sample, Samples, gathered, some
from .shards import Record, in_shard, records_of, shards_of
from .sources import list_pictures
from .tables import TABLES, TEXT_COLUMNS, Columns, cell_text, choose, opened, rows_of, texts_in

FORMS = (
    f"They must be a table ({', '.join(TABLES)}), a folder of pictures with text files, class folders, .tar shards, a "
    "data frame, a Hugging Face data set or a list of (picture, texts)"
)


def load_pairs(
    source: Any,
    *,
    image: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Samples:
    """Load pictures with their texts; classes are optional.

    A picture in several rows becomes one sample with all of its texts.

    Args:
        source: one of
            - a table with a column of file names, relative to the table, and at least one column of texts; a value in
                JSONL or Parquet may be a list of texts;
            - a folder of pictures with a text file for each (``a.jpg``, ``a.txt``), or class folders, whose names
                become the texts;
            - a WebDataset shard (``.tar``), a folder of them, or ``shard-{000..012}.tar``: ``a.jpg`` with ``a.txt`` or
                ``a.json``;
            - a data frame, or one split of a Hugging Face data set;
            - a list of pairs ``(picture, text or texts)``, or samples.
        image: column of pictures; default: a column named image, picture, file or similar.
        text: columns of texts; default: all columns named text, caption, title or similar, with or without numbers.
        label: column of classes; default: ``label``, if it exists.
        group: column of groups, such as the patient or the product; pictures of a group are held out together.

    Raises:
        DataError: there are no usable pictures, or a column is missing.
        InputError: the source is not supported.

    Example:
        >>> import numpy as np
        >>> dark, light = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
        >>> load_pairs([(dark, ["a dark square", "night"]), (light, "a light square")])
        Samples(2 pictures, 3 texts)
    """
    pairs = read_pairs(source, image=image, text=text, label=label, group=group)
    missing = [s.image for s in pairs.items if s.pixels is None and not os.path.exists(s.image)]
    if len(missing) == len(pairs):
        raise DataError(
            f"None of the {len(pairs)} pictures exists. The first is {missing[0]}. Paths must be "
            "absolute or relative to the table."
        )
    gone = set(missing)
    items = [s for s in pairs.items if s.image not in gone]
    if len(items) == 1:
        raise DataError(f"At least two pictures with texts are required, got only {items[0].image}.")
    notes = [f"left out {len(missing)} picture(s) that do not exist: {some(missing, 3)}"] if missing else []
    return gathered(items, [*pairs.notes, *notes])


def read_pairs(
    source: Any,
    *,
    image: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Samples:
    """Load pictures with texts like :func:`load_pairs`, but keep samples whose files are missing."""
    if isinstance(source, Samples):
        return source
    columns = Columns(image, (text,) if isinstance(text, str) else tuple(text or ()), label, group)
    parts = Parts(str(source) if isinstance(source, str | os.PathLike) else "The source")
    if isinstance(source, str | os.PathLike):
        _from_path(Path(source), columns, parts)
    elif (table := opened(source)) is not None:
        _from_columns(*table, columns, parts)
    elif isinstance(source, list | tuple):
        for i, one in enumerate(source):
            if not isinstance(one, tuple | list) or len(one) != 2:
                raise InputError(
                    f"Item {i} of the data must be a pair (picture, text or texts), got {article(type(one).__name__)}."
                )
            parts.add(sample_of(one[0], f"picture {i + 1}"), texts_in(one[1], f"Item {i}"))
    else:
        streamed = hasattr(source, "take") and not hasattr(source, "__len__")
        cure = "Load all of it, or only its first rows: Dataset.from_list(list(data.take(1000)))"
        raise InputError(
            f"Pictures with texts cannot be read from {article(type(source).__name__)}. {FORMS}. "
            f"{cure if streamed else 'Give one of them'}."
        )
    return parts.samples()


@dataclass
class Parts:
    """Samples while a source is read; rows of the same picture are merged."""

    where: str
    found: dict[str, Sample] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)

    def add(self, sample: Sample, texts: Iterable[str]) -> None:
        """Add a row of the source; all rows of the same picture make one sample."""
        image, label, group = sample.image, sample.label, sample.group
        self.texts.setdefault(image, []).extend(t.strip() for t in texts if t.strip())
        before = self.found.setdefault(image, sample)
        if before.label and label and before.label != label:
            raise DataError(
                f"{self.where} gives {image} two classes, {before.label!r} and {label!r}. Correct one of "
                "the rows, or name another column of classes."
            )
        if before.group and group and (one := self._root(before.group)) != (other := self._root(group)):
            self.same[other] = one
        self.found[image] = replace(before, label=before.label or label, group=before.group or group)

    def _root(self, group: str) -> str:
        while (above := self.same.get(group)) is not None:
            self.same[group] = group = self.same.get(above, above)
        return group

    def samples(self) -> Samples:
        """Return the samples; pictures without a text are left out with a note."""
        silent = [image for image, texts in self.texts.items() if not texts]
        items = [replace(s, texts=tuple(self.texts[s.image])) for s in self.found.values() if self.texts[s.image]]
        items = [replace(s, group=self._root(s.group)) if s.group in self.same else s for s in items]
        notes = list(self.notes)
        if self.same:
            alike = [f"{one} = {other}" for one, other in self.same.items()]
            notes.append(
                f"{len(alike)} group(s) share a picture with another group and were merged with it: {some(alike, 3)}"
            )
        if silent:
            notes.append(f"left out {len(silent)} picture(s) without a text: {some(silent, 3)}")
        if not items:
            raise DataError(
                f"{self.where} has no pictures with texts. {FORMS}. Give at least two pictures with their texts."
            )
        return Samples(tuple(items), gathered(items).classes, tuple(notes))


def _from_path(path: Path, columns: Columns, parts: Parts) -> None:
    if path.suffix.lower() in TABLES:
        _from_rows(list(rows_of(path)), columns, parts, path.parent)
    elif shards := shards_of(path):
        for shard in shards:
            for key, record in records_of(shard, parts.notes):
                _add_record(f"{shard}/{key}", record, columns, parts)
    elif path.is_dir():
        _from_folder(path, parts)
    else:
        raise DataError(f"{path} has no pictures with texts. {FORMS}. Check the name.")


def _from_rows(rows: Sequence[dict[str, Any]], columns: Columns, parts: Parts, folder: Path) -> None:
    if not rows:
        raise DataError(f"{parts.where} has no rows. Add one row per picture and text.")
    chosen, nameless = choose(columns, rows, parts.where), []
    for number, row in enumerate(rows, start=1):
        where = f"{parts.where}, row {number}"
        place = cell_text(row.get(chosen.image or ""), f"{where}, column {chosen.image!r},").strip()
        if not place:
            nameless.append(str(number))
            continue
        name = os.path.normpath(folder / place)
        shard, _, member = name.partition(f".tar{os.sep}")  # shards/0.tar/a.jpg
        pixels = in_shard(Path(f"{shard}.tar"), member) if member else None
        parts.add(Sample(name, pixels=pixels, **chosen.belonging(row, where)), chosen.texts_of(row, where))
    if nameless:
        parts.notes.append(f"left out {len(nameless)} row(s) without a picture: {some(nameless)}")


def _from_folder(root: Path, parts: Parts) -> None:
    """Add the pictures of a folder with their text files, or with their folder names if there are no text files."""
    beside = {name: Path(name).with_suffix(".txt") for name in list_pictures([root])}
    has_texts = any(path.is_file() for path in beside.values())
    for name, path in beside.items():
        if has_texts:
            with readable(path, "Save it as UTF-8 text."):
                parts.add(Sample(name), [read_text(path)] if path.is_file() else [])
        else:
            label, *_ = (*Path(name).relative_to(root).parts[:-1], "")
            parts.add(Sample(name, label), [label.replace("_", " ")])


def _add_record(key: str, record: Record, columns: Columns, parts: Parts) -> None:
    if record.picture is None:
        return
    row = record.facts.get("json")
    row = dict(row) if isinstance(row, dict) else {} if row is None else {"texts": row}
    for ending in ("txt", "text", "caption"):
        if isinstance(said := record.facts.get(ending), str):
            row.setdefault("text", said)
    label = columns.label or "label"
    if isinstance(name := record.facts.get("cls"), str):
        row.setdefault(label, name)
    wanted = columns.texts or tuple(c for c in TEXT_COLUMNS if c in row)[:1]
    chosen = replace(columns, texts=wanted, label=label)
    sample = Sample(record.picture.name, pixels=record.picture, **chosen.belonging(row, key))
    parts.add(sample, chosen.texts_of(row, key))


def _from_columns(source: Any, own_names: dict[str, Any], columns: Columns, parts: Parts) -> None:
    """Add the rows of a data frame or a Hugging Face data set; pictures are fetched on access."""
    if not len(source):
        raise DataError("The data has no rows. Add one row per picture and text.")
    kinds = {name: type(kind).__name__ for name, kind in (getattr(source, "features", None) or {}).items()}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    wanted = replace(columns, image=pictures[0]) if columns.image is None and pictures else columns
    values = {name: column_of(source, own) for name, own in own_names.items() if name not in pictures}
    rows = [{**dict.fromkeys(pictures), **{n: column[i] for n, column in values.items()}} for i in range(len(source))]
    chosen = choose(wanted, rows, parts.where)
    samples = fetched(lambda i: source[i][chosen.image], len(rows))
    if (kept := values.get(chosen.image or "")) is not None:
        samples = [sample_of(one, fetch.image) for one, fetch in zip(kept, samples, strict=True)]
    for number, (sample, row) in enumerate(zip(samples, rows, strict=True), start=1):
        where = f"{parts.where}, row {number}"
        parts.add(replace(sample, **chosen.belonging(row, where)), chosen.texts_of(row, where))
