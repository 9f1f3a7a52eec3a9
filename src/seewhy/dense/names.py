"""The names of what is to be found."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import DataError
from ..spelling import first_repeated


def names_to_find(labels: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, without blanks around them."""
    names = tuple(" ".join(str(one).split()) for one in ([labels] if isinstance(labels, str) else labels))
    names = tuple(name for name in names if name)
    twice = first_repeated(names)
    if not names or twice:
        given = f"{twice!r} twice" if twice else "no name"
        raise DataError(f"A detector was given {given}. One or more different names were expected. Change them.")
    return names
