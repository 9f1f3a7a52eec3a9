"""Names of a network's own classes, told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names in their order; one that more than one class has is followed by the class's row.

    ImageNet's larger sets repeat names, the bird and the machine *crane* among them.

    Example:
        >>> distinct(["crane", "cat", "crane"])
        ('crane (0)', 'cat', 'crane (2)')
    """
    found = tuple(names)
    while len(set(found)) < len(found):
        counts = Counter(found)
        found = tuple(f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(found))
    return found
