"""Pictures to learn from, with or without classes: class folders, a table, or a folder of pictures."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .datasets import rows_of as rows_of_pictures
from .datasets import samples_of
from .samples import Sample, Samples, gathered, load_samples, no_column, some
from .sources import SUFFIXES, InMemory, list_pictures, name_of
from .tables import TABLES, cell_text, rows_of


def load_pictures(
    source: str | Path, *, image: str = "image", label: str = "label", group: str | None = None
) -> Samples:
    """Read class folders, a table or just pictures.

    A folder without folders in it has pictures without classes; so has a table without the column of classes.
    """
    path = Path(source)
    if path.is_dir() and not any(p.is_dir() and not p.name.startswith(".") for p in path.iterdir()):
        return gathered([Sample(name) for name in list_pictures([path])])
    if path.suffix.lower() in TABLES and not path.is_dir():
        columns = {name for row in rows_of(path) for name in row}
        if label not in columns and image in columns:
            return _without_labels(path, image, group, columns)
    elif not path.is_dir():
        raise DataError(
            f"{path} is neither a folder nor a table. Give a folder of pictures, one with a folder per class, or a "
            f"table ending in {', '.join(TABLES)} with the column {image!r}; pictures end in {', '.join(SUFFIXES)}."
        )
    found = load_samples(path, image=image, label=label, group=group)
    return replace(found, items=tuple(replace(s, texts=()) for s in found.items))


def pictures_of(source: Any, **columns: str) -> Samples:
    """Pictures in any form, with their classes where they have any."""
    if isinstance(source, Samples):
        return source
    if isinstance(source, str | os.PathLike):
        return load_pictures(os.fspath(source), **columns)
    alone = rows_of_pictures(source) if not isinstance(source, tuple) else []
    if alone and not any(isinstance(one, tuple) for one in alone):
        return gathered([_sample(one, i) for i, one in enumerate(alone, 1)])
    return samples_of(source)


def _sample(one: Any, number: int) -> Sample:
    if isinstance(one, str | os.PathLike):
        return Sample(os.fspath(one))
    name = name_of(one, number)
    return Sample(name, pixels=one if isinstance(one, InMemory) else InMemory(name, lambda: one))


def _without_labels(path: Path, image: str, group: str | None, columns: set[str]) -> Samples:
    if group is not None and group not in columns:
        raise no_column(path, group, columns, " to say which pictures belong together")
    items, empty = [], []
    for number, row in enumerate(rows_of(path), start=1):
        place = cell_text(row.get(image, ""), f"{path}, row {number}, column {image!r},")
        if not place.strip():
            empty.append(str(number))
            continue
        belongs = str(row[group]).strip() or None if group is not None and row.get(group) is not None else None
        items.append(Sample(str(path.parent / place), group=belongs))
    if not items:
        raise DataError(f"{path} has no rows with {image!r}. Fill them in.")
    return gathered(items, [f"{len(empty)} row(s) without picture left out: {some(empty)}"] if empty else [])
