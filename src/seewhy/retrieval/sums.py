"""By what an index's catalogue is checked when it is read, as SQLite checks nothing of what lies in its pages.

Every item and every small picture has a CRC-32. Row and class of all items have a number and a sum of theirs, so that
one that is missing, or has moved to another row or class, is noticed without reading the others' names. What the index
says of itself ends in a line of 32 blanks and tabs, which no reader of JSON sees: the bits of its CRC-32.

Catalogues of earlier versions have none of these until something is added.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

_BITS = str.maketrans("01", " \t")
_SEAL = re.compile(r"\n[ \t]{32}\Z")
Pair = tuple[int, str]
"""Row and class of an item."""


def sum_of(values: Any) -> int:
    """CRC-32 of plain values."""
    return zlib.crc32(json.dumps(values).encode())


def jpeg_sum(jpeg: bytes | None) -> int | None:
    return None if jpeg is None else zlib.crc32(jpeg)


@dataclass(frozen=True)
class Totals:
    """Of all items.

    Attributes:
        n: how many.
        sum: of the CRC-32 of each one's row and class, modulo 2³².
    """

    n: int = 0
    sum: int = 0

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Totals:
        return cls().changed((None, pair) for pair in pairs)

    def changed(self, changes: Iterable[tuple[Pair | None, Pair | None]]) -> Totals:
        """After items were added, taken out, or changed: what each was before, and what it is now."""
        n, total = self.n, self.sum
        for before, now in changes:
            if before is not None:
                n, total = n - 1, total - zlib.crc32(f"{before[0]} {before[1]}".encode("utf-8", "surrogatepass"))
            if now is not None:
                n, total = n + 1, total + zlib.crc32(f"{now[0]} {now[1]}".encode("utf-8", "surrogatepass"))
        return Totals(n, total % 2**32)

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def sealed(text: str) -> str:
    """A JSON text with its sum behind it.

    Example:
        >>> unsealed(sealed("[1]"))
        '[1]'
    """
    return text + _seal(text)


def _seal(text: str) -> str:
    return "\n" + f"{zlib.crc32(text.encode()):032b}".translate(_BITS)


def unsealed(text: str) -> str:
    """The text without its sum; one that an earlier version wrote has none."""
    found = _SEAL.search(text)
    if found is None:
        return text
    value = text[: found.start()]
    if _seal(value) != found.group():
        raise ValueError(f"it says {value[:60]}, which is not as it was written")
    return value
