"""A cleaned set on the disk: the kept pairs, and beside them the removed ones, from which a rule can be undone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...pictures.pairs import read_pairs
from ...pictures.samples import Sample, Samples, gathered
from ...pictures.tables import rows_of
from ...storage.marks import SealedText
from ...storage.output import check_file, write

MORE = frozenset({"label", "group"})
KEPT = SealedText("kept pairs", lines=True)
REMOVED = SealedText("removed pairs", lines=True)


def beside(path: Path) -> Path:
    """Where the removed pairs of a cleaned set lie."""
    return path.with_name(f"{path.stem}.removed.jsonl")


def check_place(path: Path, *, force: bool = False) -> None:
    """See that both files can be written, before the work begins."""
    if path.suffix.lower() != ".jsonl":
        raise DataError(
            f"{path} was given as the place of cleaned pairs. A name ending in .jsonl was expected. Add it."
        )
    check_file(path, KEPT, force=force)
    check_file(beside(path), REMOVED, force=force)


def save(
    path: Path, kept: Samples, removed: Sequence[dict[str, Any]], *, force: bool = False, kept_first: bool = False
) -> tuple[Path, Path]:
    """Write both files; pictures are named relative to them.

    Args:
        path: of the kept pairs.
        kept: pictures with the texts that are left.
        removed: the others.
        force: write over somebody else's files too.
        kept_first: where pairs come back out of the removed ones. Whatever stops the second file, none is lost.
    """
    check_place(path, force=force)
    rows = [{"image": _named(s, path), "texts": list(s.texts), **_more(s.label, s.group)} for s in kept.items]
    others = [
        {"image": _relative(one["image"], path), "text": one["text"], "reasons": one["reasons"]}
        | _more(one["label"], one["group"])
        for one in removed
    ]
    both = [(beside(path), others, REMOVED), (path, rows, KEPT)]
    for place, found, marks in both[::-1] if kept_first else both:
        write(place, _lines(found), marks, force=force)
    return path, beside(path)


def restore(path: str | Path, rule: str, output: str | Path | None = None, *, force: bool = False) -> int:
    """Put back what one rule removed; a pair that breaks another rule too stays out for that one.

    Args:
        path: a cleaned set.
        rule: its name.
        output: where to write; left out, over the set itself.
        force: write over somebody else's file too.

    Returns:
        Pairs that are back.

    Raises:
        DataError: it is no cleaned set, or the rule removed nothing from it.
    """
    path = Path(path)
    if not beside(path).is_file():
        raise DataError(
            f"{path} has no {beside(path).name} beside it, which says what was removed. A set that seewhy pairs "
            f"clean wrote "
            "was expected. Name one."
        )
    removed = list(rows_of(beside(path)))
    there = sorted({name for row in removed for name in row["reasons"]})
    if rule not in there:
        raise DataError(
            f"The rule {rule!r} removed nothing from {path}. One of {', '.join(there) or 'none'} was expected. Name it."
        )
    kept = {s.image: s for s in read_pairs(path, group="group" if _has_groups(path) else None).items}
    out, back = [], 0
    for row in removed:
        left = {name: reason for name, reason in row["reasons"].items() if name != rule}
        image = os.path.normpath(path.parent / row["image"])
        label, group = row.get("label", ""), row.get("group")
        if left:
            out.append({"image": image, "text": row["text"], "reasons": left, "label": label, "group": group})
        else:
            old = kept.get(image, Sample(image, label, (), group))
            kept[image] = Sample(image, old.label, (*old.texts, row["text"]), old.group, old.pixels)
            back += 1
    save(Path(output or path), gathered(list(kept.values())), out, force=force, kept_first=True)
    return back


def _has_groups(path: Path) -> bool:
    return any("group" in row for row in rows_of(path))


def _named(sample: Sample, path: Path) -> str:
    if sample.pixels is not None and ".tar" not in sample.image:
        raise DataError(
            f"{sample.image} is no file, and a table can only name files. Pictures in files or shards were expected. "
            f"Save "
            "them first."
        )
    return _relative(sample.image, path)


def _relative(image: str, path: Path) -> str:
    return os.path.relpath(image, path.parent)


def _more(label: str, group: str | None) -> dict[str, str]:
    return ({"label": label} if label else {}) | ({"group": group} if group else {})


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
