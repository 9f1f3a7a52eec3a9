"""Reading every byte of an index that an answer can hang on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from ..errors import DataError
from ..storage.reading import file_sha256, reason
from ..storage.verification import Checked, Verification
from .catalogue import FILE, Catalogue
from .columns import Column
from .whitening import Whitening

T = TypeVar("T")
SHOWN = 5
"""Damaged rows of a column that are named."""


def verify(catalogue: Catalogue) -> Verification:
    """What of an index is not as it was written.

    Raises:
        DataError: another process writes to it and does not finish.
    """
    with catalogue.reading():
        return Verification.of(catalogue.folder, _files(catalogue))


def _files(catalogue: Catalogue) -> Iterator[Checked]:
    if damage := catalogue.damage():
        yield Checked(FILE, damage)
    else:
        yield Checked(FILE, has_sums=catalogue.has_sums)
    shapes: dict[str, list[int]] = _known(lambda: catalogue.need("columns"), {})
    for name, shape in shapes.items():
        yield _column(Column(catalogue.folder, name, *shape), catalogue)
    if (white := _known(lambda: catalogue.get("whitening"), None)) is not None:
        path = catalogue.folder / white["file"]
        yield Checked(path.name, _why(lambda: Whitening.load(path)))
    if (built := _known(lambda: catalogue.get("approximate"), None)) is not None:
        path, kept = catalogue.folder / built["file"], built.get("sha256", "")
        digest: list[str] = []
        why = _why(lambda: digest.append(file_sha256(path)))
        changed = bool(kept) and digest != [kept]
        yield Checked(path.name, why or "its SHA-256 is not the one kept in the index" * changed, bool(kept))


def _column(column: Column, catalogue: Catalogue) -> Checked:
    wrong: list[int] = []

    def check() -> None:
        n = catalogue.need("n_rows")
        wrong.extend(column.rows(n, has_sums=catalogue.has_sums).check(np.arange(n)).tolist())

    why = _why(check)
    if wrong:
        more = f" and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
        named = ", ".join(str(row + 1) for row in wrong[:SHOWN])
        why = f"row {named}{more} is not as it was written, or its sum in {column.sums.name} is not"
    return Checked(column.path.name, why, _known(lambda: catalogue.has_sums, True))


def _why(read: Callable[[], object]) -> str:
    """Why something cannot be read; empty where it can."""
    try:
        read()
    except (DataError, OSError) as error:
        return reason(error)
    return ""


def _known(ask: Callable[[], T], otherwise: T) -> T:
    """What the catalogue says; where that is damaged it has been said of the catalogue."""
    try:
        return ask()
    except DataError:
        return otherwise
