"""What a check found: findings with their reasons, as a page and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...report.check import render_check
from ...report.paging import Page

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


@dataclass(frozen=True)
class Like:
    """A picture that one is like.

    Attributes:
        image, label: which, and what it is said to be.
        cosine: of their features.
    """

    image: str
    label: str
    cosine: float


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one picture.

    Attributes:
        kind: of :data:`KINDS`.
        image, label: the picture, as the data have it.
        key: first 16 digits of the SHA-256 of its bytes, by which decisions know it; empty where it cannot be read.
        doubt: from 0 to 1 within its kind, the higher the sooner to look at.
        why: a sentence.
        proposed: another label, where there is one.
        own, other: the nearest pictures of its label, and of the one proposed.
        pictures: the other pictures that it is about, such as its copies.
        splits: of a copy across splits of the data, its own and that of the other.
    """

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
        like = {name: [vars(one) for one in getattr(self, name)] for name in ("own", "other")}
        plain = {k: v for k, v in vars(self).items() if k not in (*like, "pictures", "splits")}
        lists = {"with": list(self.pictures), "splits": list(self.splits)}
        return {**plain, "doubt": round(self.doubt, 4), **lists, "like": like}


@dataclass(frozen=True, repr=False)
class Checked(Page):
    """What is wrong with the pictures.

    Attributes:
        read: shows a picture of the page, by its name.
    """

    read: Callable[[str], np.ndarray | None] = field(default=lambda _name: None, compare=False)

    def to_html(self) -> str:
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
