"""Find repeated names and names with a similar spelling."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence

LONGEST = 100
"""Maximum number of compared characters of a name."""
MOST = 5000
"""Maximum number of names to compare with."""


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurs a second time, or ``None``.

    >>> first_repeated(["wren", "robin", "wren"])
    'wren'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def suggestion(near: Sequence[str], choices: Sequence[str]) -> str:
    """Return the similar names as a question or, if there are none, the first known names.

    >>> suggestion(["wren"], ["robin", "wren"]), suggestion([], ["robin", "wren"])
    ("Did you mean 'wren'?", "The first are 'robin', 'wren'.")
    """
    return (
        f"Did you mean {', '.join(map(repr, near))}?" if near else f"The first are {', '.join(map(repr, choices[:5]))}."
    )


def nearest(name: str, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known names with the most similar spelling, the nearest first.

    Names with the same letters and digits come before all others.

    >>> nearest("wern", ["robin", "wren"]), nearest("GradCAM++", ["grad_cam", "grad_cam_plus_plus"])
    (['wren'], ['grad_cam_plus_plus'])
    """
    few = [one for one in itertools.islice(known, MOST) if len(one) <= LONGEST]
    letters = _letters(name)
    same = [one for one in few if letters and _letters(one) == letters]
    close = difflib.get_close_matches(name[:LONGEST], few, n=n, cutoff=cutoff)
    return list(dict.fromkeys(same + close))[:n]


def _letters(name: str) -> str:
    return "".join(c for c in name.casefold().replace("+", "plus") if c.isalnum())
