"""Names of which there may be any number, as they come from files and requests: repeated ones, and near ones."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

LONGEST = 100
"""Signs of a name that are compared: comparing two takes the product of their lengths."""
MOST = 5000
"""Names that one is compared with."""


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs a second time; ``None`` if each name occurs once.

    >>> first_repeated(["wren", "robin", "wren"])
    'wren'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def nearest(name: str, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Known names with a similar spelling, the nearest first. Only the first thousands that are not too long are
    compared.

    >>> nearest("wern", ["robin", "wren"])
    ['wren']
    """
    few = (one for one in itertools.islice(known, MOST) if len(one) <= LONGEST)
    return difflib.get_close_matches(name[:LONGEST], list(few), n=n, cutoff=cutoff)
