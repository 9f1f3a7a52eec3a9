"""The names of what is to be found."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import DataError


def names_to_find(labels: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, without blanks around them.

    Raises:
        DataError: there is none, or one of them twice.
    """
    names = tuple(" ".join(str(one).split()) for one in ([labels] if isinstance(labels, str) else labels))
    names = tuple(name for name in names if name)
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if not names or twice:
        given = f"{twice[0]!r} twice" if twice else "no name"
        raise DataError(f"A detector was given {given}. One or more different names were expected. Change them.")
    return names
