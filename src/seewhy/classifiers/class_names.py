"""Classes by their names and by their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DataError
from ..spelling import first_repeated, nearest


def position(label: str | int, classes: Sequence[str]) -> int:
    """Where a class stands among the others, by its name or by that position itself.

    Raises:
        DataError: there is no such class, or the number is the name of another.

    Example:
        >>> position("wren", ["robin", "wren"]), position(0, ["robin", "wren"])
        (1, 0)
    """
    if not isinstance(label, str):
        return _numbered(label, classes)
    if label in classes:
        return list(classes).index(label)
    inside = [c for c in classes if label.casefold() in c.casefold()]
    near = inside[:3] or nearest(label, classes, n=3, cutoff=0.4)
    known = near or classes[:5]
    raise DataError(
        f"There is no class called {label!r} among the {len(classes)} of this classifier. "
        f"{'Did you mean' if near else 'The first are'} {', '.join(map(repr, known))}?"
    )


def _numbered(number: int, classes: Sequence[str]) -> int:
    """A class by its number, unless that number is the name of another."""
    if str(number) in classes and list(classes).index(str(number)) != number:
        raise DataError(
            f"The number {number} was given as a class, and a class in another place is called {str(number)!r}. "
            f"A name was expected. Write {str(number)!r} in quotes."
        )
    if not 0 <= number < len(classes):
        raise DataError(
            f"The class number {number} was given. One from 0 ({classes[0]!r}) to {len(classes) - 1} "
            f"({classes[-1]!r}) was expected. Give one of them, or a class by its name."
        )
    return int(number)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as the user wrote them, without outer blanks."""
    cleaned = tuple(n.strip() for n in names if n.strip())
    if len(cleaned) < 2:
        raise DataError(f"{len(cleaned)} class was named. Name at least two, separated by commas.")
    if (twice := first_repeated(cleaned)) is not None:
        raise DataError(f"The class {twice!r} is named twice. Name each class once.")
    return cleaned
