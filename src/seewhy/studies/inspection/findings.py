"""What a check found: findings with their reasons, as a page and as JSON, and how it is read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, ImageError
from ...pictures.images import read_picture
from ...pictures.samples import Sample
from ...report.paging import Page
from ...results import restore
from ...storage.reading import json_value, read_text
from ...types import Transform
from ..outputs import CheckedOutput

KINDS: Mapping[str, str] = {
    "class": "Label of no class",
    "contradiction": "Copies under two labels",
    "label": "Label likely wrong",
    "split": "Copy of a picture of another split",
    "copy": "Copy within the data",
    "outlier": "Unlike every class",
    "broken": "Cannot be read",
    "blank": "Blank",
    "dark": "Dark",
    "overexposed": "Overexposed",
    "blurred": "Blurred",
    "size": "Odd size",
    "shape": "Odd shape",
}
"""What is looked for, in the order in which it is gone through, and how it is said."""
COLUMNS = ("kind", "image", "label", "proposed", "doubt", "why", "with", "key")
NAME = "check.json"
_SMALL = Transform((128, 128), 128, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Like:
    """A picture that one is like, and the cosine of their features."""

    image: str
    label: str
    cosine: float


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one picture."""

    kind: str
    image: str
    label: str
    key: str
    doubt: float
    why: str
    proposed: str | None = None
    own: tuple[Like, ...] = ()
    other: tuple[Like, ...] = ()
    pictures: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        plain = {k: getattr(self, k) for k in ("kind", "image", "label", "key", "why", "proposed")}
        like = {name: [vars(one) for one in getattr(self, name)] for name in ("own", "other")}
        lists = {"with": list(self.pictures), "splits": list(self.splits)}
        return {**plain, "doubt": round(self.doubt, 4), **lists, "like": like}


@dataclass(frozen=True, repr=False)
class Checked(Page):
    """What is wrong with the pictures; ``read`` gives one for the page, by its name."""

    read: Callable[[str], np.ndarray | None] = field(default=lambda _name: None, compare=False)

    def to_html(self) -> str:
        from ...report.check import render_check

        return render_check(self.data, KINDS, self.read)

    def rows(self) -> list[list[Any]]:
        """The findings as rows of a table, under :data:`COLUMNS`."""
        return [["|".join(f["with"]) if name == "with" else f[name] for name in COLUMNS] for f in self.data["findings"]]


def sentence(n: int, counts: Mapping[str, int]) -> str:
    """How many of what, in a sentence.

    >>> sentence(9, {"label": 2, "dark": 0})
    'Of 9 pictures, 2 findings: label likely wrong 2.'
    """
    found = [f"{KINDS[kind].lower()} {k}" for kind, k in counts.items() if k]
    total = sum(counts.values())
    if not found:
        return f"Of {n:,} pictures, none has anything wrong that is looked for."
    return f"Of {n:,} pictures, {total:,} finding{'s' if total > 1 else ''}: {', '.join(found)}."


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """By kind, and the most doubtful first."""
    place = {kind: i for i, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda f: (place[f.kind], -f.doubt, f.image))


def digest_of(items: Sequence[Sample]) -> str:
    """By which a check knows its data again: the pictures' names, from where all lie, and labels, in their order.

    >>> digest_of([Sample("a.png", "moss")]) == digest_of([Sample("a.png", "rust")])
    False
    """
    names = [os.path.abspath(s.image) for s in items]
    root = os.path.commonpath(names) if names else ""
    rows = json.dumps([[os.path.relpath(name, root), s.label] for name, s in zip(names, items, strict=True)])
    return hashlib.sha256(rows.encode("ascii", "backslashreplace")).hexdigest()


def small_picture(name: str) -> np.ndarray | None:
    """A picture for the page, cut to its middle; ``None`` where it cannot be read."""
    try:
        return read_picture(name, _SMALL).pixels
    except ImageError:
        return None


def read_check(folder: Path, data: Path, items: Sequence[Sample]) -> dict[str, Any]:
    """The document of ``seewhy check`` in a folder, if it is on these pictures with these labels."""
    path = folder / NAME
    try:
        check = json_value(read_text(path))
        restore(CheckedOutput, check, "it")
    except (OSError, ValueError, DataError) as error:
        why = str(error).partition(". ")[0] if isinstance(error, DataError) else repr(error)
        raise DataError(
            f"{path} cannot be read: {why}. What seewhy check -o wrote was expected. Check the data again."
        ) from error
    if check["digest"] != digest_of(items):
        raise DataError(
            f"{data} is not as it was at the check in {folder}: pictures or labels have changed. The same names and "
            f"labels were expected. Check it again with -o {folder}; what was decided there is kept."
        )
    return dict(check)
