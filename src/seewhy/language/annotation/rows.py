"""Rows of a store as records: read back as strictly as an export is, for the file may be damaged or another hand's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import DataError
from ...storage.files import json_value
from .records import Content, Picture, Version, check_content, check_seconds, check_version
from .side_by_side import check_judgement


@dataclass(frozen=True)
class Draft:
    """What a person has typed and not yet saved as a version.

    Attributes:
        revision: counts up with every keeping.
        base: version it began from; 0 where there was none.
        content: all of it.
        seconds: active time so far.
        made: UTC, ISO 8601.
        tab: window that it was typed in.
        sequence: of that window's messages.
    """

    revision: int
    base: int
    content: Content
    seconds: float
    made: str
    tab: str = ""
    sequence: int = 0


@contextmanager
def _as_written() -> Iterator[None]:
    """A row read back must be what this program would write: the file may be damaged, or another hand's."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise DataError(
            f"The annotations hold a row that cannot be read: {str(error).rstrip('.')}. Rows as this program writes "
            "them were expected. Take an earlier copy of the file."
        ) from error


def _kept(values: Sequence[Any], *kinds: type) -> Sequence[Any]:
    if not all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True)):
        raise ValueError(f"{', '.join(k.__name__ for k in kinds)} were expected.")
    return values


def picture_of(row: Sequence[Any]) -> Picture:
    with _as_written():
        return Picture(*_kept(row, str, str, str, int, int))


def version_of(row: Sequence[Any]) -> Version:
    names = ("task", "number", "author", "kind", "content", "seconds", "base", "made")
    with _as_written():
        given = dict(zip(names, row, strict=True))
        return check_version({**given, "content": json_value(given["content"])})


def draft_of(task: str, row: Sequence[Any]) -> Draft:
    revision, base, content, seconds, made, tab, sequence = row
    with _as_written():
        _kept((revision, base, made, tab, sequence), int, int, str, str, int)
        kept = check_content(task, json_value(content))
        return Draft(revision, base, kept, check_seconds(seconds), made, tab, sequence)


def judgement_of(row: Sequence[Any]) -> dict[str, Any]:
    picture, author, first, second, swapped, answers, seconds, made = row
    given = {"author": author, "first": first, "second": second, "seconds": seconds, "made": made}
    with _as_written():
        checked = check_judgement({**given, "swapped": bool(swapped), "answers": json_value(answers)})
    return {"picture": picture, **checked}
