"""Which columns of a table hold the pictures, their texts, classes and groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..spelling import nearest
from .datasets import IMAGE_COLUMNS
from .samples import no_column
from .sources import SUFFIXES
from .tables import cell_text

TEXT_COLUMNS = ("text", "texts", "caption", "captions", "sentence", "sentences", "title", "description", "txt")
LOOKED_AT = 50
"""Rows by which is decided whether a column holds file names or sentences."""


@dataclass(frozen=True)
class Columns:
    """Names of columns; ``None``, or none, where they are to be found."""

    image: str | None = None
    texts: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None

    def belonging(self, row: Mapping[str, Any], where: str, number: int) -> tuple[str, str | None]:
        """A row's class and group, each empty where it has none."""
        label = "" if self.label is None else cell_text(row.get(self.label), f"{where}, row {number}, {self.label!r},")
        value = None if self.group is None else row.get(self.group)
        group = None if value is None or value != value else str(value).strip() or None  # NaN is not itself
        return label.strip(), group


def choose(wanted: Columns, rows: Sequence[Mapping[str, Any]], where: str) -> Columns:
    """The columns that are there, by name or by the usual names."""
    names = list(dict.fromkeys(str(name) for row in rows[:LOOKED_AT] for name in row))
    for name in (wanted.image, *wanted.texts, wanted.label, wanted.group):
        if name is not None and name not in names:
            raise no_column(where, name, names)
    image = wanted.image or _usual(names, IMAGE_COLUMNS, "pictures", "--column image", where)
    texts = wanted.texts or _text_columns([n for n in names if n not in (image, wanted.group)], where)
    label = wanted.label or ("label" if "label" in names and "label" not in texts else None)
    cure = "Name another column" if wanted.texts else "Name their column with --column text"
    _check_contents(image, texts, rows[:LOOKED_AT], names, where, cure)
    return Columns(image, texts, label, wanted.group)


def _usual(names: Sequence[str], usual: Sequence[str], what: str, option: str, where: str) -> str:
    folded = {name.casefold(): name for name in reversed(names)}
    if found := next((folded[u] for u in usual if u in folded), None):
        return found
    near = next((m for u in usual[:4] for m in nearest(u, names)), None)
    meant = f" Did you mean {near!r}?" if near else ""
    raise DataError(
        f"{where} has no column of {what} among {', '.join(map(repr, names))}.{meant} One called {usual[0]!r} was "
        f"expected. Rename it, or name it with {option}."
    )


def _text_columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    """One by its usual name, or several that are numbered: caption_0, caption_1, …"""
    for usual in TEXT_COLUMNS:
        numbered = [n for n in names if re.fullmatch(rf"{usual}[_ -]?\d+", n.casefold())]
        if numbered and usual not in (n.casefold() for n in names):
            return tuple(numbered)
    return (_usual(names, TEXT_COLUMNS, "texts", "--column text", where),)


def _check_contents(
    image: str, texts: Sequence[str], rows: Sequence[Mapping[str, Any]], names: Sequence[str], where: str, cure: str
) -> None:
    """See that pictures and texts have not changed places."""
    for name in texts:
        if _are_files([row.get(name) for row in rows]):
            others = [n for n in names if n not in (image, *texts) and _are_sentences([row.get(n) for row in rows])]
            meant = image if _are_sentences([row.get(image) for row in rows]) else next(iter(others), None)
            hint = f" Did you mean {meant!r}?" if meant else ""
            raise DataError(
                f"{where}, column {name!r}, holds file names, such as {rows[0].get(name)!r}.{hint} Texts were "
                f"expected. {cure}."
            )
    values = [row.get(image) for row in rows]
    if _are_sentences(values):
        meant = next((n for n in names if n != image and _are_files([row.get(n) for row in rows])), None)
        hint = f" Did you mean {meant!r}?" if meant else ""
        raise DataError(
            f"{where}, column {image!r}, holds sentences, such as {values[0]!r}.{hint} File names were expected. "
            "Name their column with --column image."
        )


def _are_files(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(v, str) and v.strip().lower().endswith(SUFFIXES) for v in values)


def _are_sentences(values: Sequence[Any]) -> bool:
    """Whether all have a blank in them and none ends as a picture's name does."""
    texts = [v for v in values if isinstance(v, str)]
    return bool(texts) and all(" " in t.strip() and not t.strip().lower().endswith(SUFFIXES) for t in texts)


def texts_in(value: Any, where: str) -> list[str]:
    """The texts of a cell: one, or a list of them."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [t for one in value for t in texts_in(_sentence(one), where)]
    if value is None or value != value:  # NaN is not itself
        return []
    if not isinstance(value, str):
        raise DataError(
            f"{where} holds {value!r}. A text, or a list of texts, was expected. Name the column of texts, or "
            f"correct it."
        )
    return [value]


def _sentence(one: Any) -> Any:
    """As COCO's annotations have it."""
    return one.get("raw", one.get("caption", one)) if isinstance(one, dict) else one
