"""Files of what parts classes pair by pair, as ``seewhy describe pairs`` writes them and people edit them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..storage.files import json_value
from ..storage.marks import PAIRS
from ..storage.output import write
from ..storage.reading import read_text, reason
from .class_questions import Difference, Pair

FORM = '[{"classes": ["a", "b"], "differences": [{"attribute": "…", "first": "…", "second": "…"}, …]}, …]'


def read_pairs(path: str | Path) -> list[Pair]:
    """Read a file of pairs; the same two classes may come more than once, in either order."""
    try:
        rows = json_value(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. Write {FORM}.") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no pairs. Write {FORM}.")
    return [_pair(row, f"{path}, pair {i}") for i, row in enumerate(rows, 1)]


def _pair(row: Any, place: str) -> Pair:
    names = row.get("classes") if isinstance(row, dict) else None
    if not isinstance(names, list) or len(names) != 2 or not all(isinstance(n, str) and n.strip() for n in names):
        raise DataError(f"{place} does not name two classes. Write {FORM}.")
    first, second = (n.strip() for n in names)
    if first == second:
        raise DataError(f"{place} names {first!r} twice. Name two classes.")
    found = []
    listed = row.get("differences")
    for one in listed if isinstance(listed, list) else []:
        given = [one.get(k) for k in ("attribute", "first", "second")] if isinstance(one, dict) else []
        texts = [t.strip() for t in given if isinstance(t, str)]
        if len(texts) < 3 or not all(texts[1:]):
            raise DataError(f"{place} has a difference without attribute, first or second. Write {FORM}.")
        found.append(Difference(*texts))
    if not found:
        raise DataError(f"{place} has no differences. Write at least one, or leave the pair out.")
    return Pair((first, second), tuple(found))


def write_pairs_file(path: str | Path, pairs: Iterable[Pair], *, force: bool = False) -> Path:
    """Keep pairs as a file, over one that SeeWhy wrote and nobody has edited since, or with ``force`` over any."""
    return write(path, json.dumps([p.to_json() for p in pairs], indent=1, ensure_ascii=False), PAIRS, force=force)


def check_pairs(pairs: Sequence[Pair], classes: Sequence[str]) -> list[Pair]:
    """Those of these classes."""
    kept = [p for p in pairs if set(p.classes) <= set(classes)]
    if not kept:
        named = sorted({n for p in pairs for n in p.classes})
        raise DataError(
            f"None of the {len(pairs)} pairs ({', '.join(map(repr, named[:3]))}, …) is of two of the {len(classes)} "
            f"classes ({', '.join(map(repr, classes[:3]))}, …). Name them alike."
        )
    return kept
