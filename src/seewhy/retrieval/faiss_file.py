"""Whether a file is an inverted file of 8-bit vectors as faiss writes it, all of it, before faiss reads it.

faiss takes the lengths in a file at their word. So every length is compared with what the index says of itself and
with the size of the file first; only the numbers between them are faiss's to read.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..storage.reading import open_regular


def check_file(path: Path, *, width: int, n_lists: int, n_rows: int) -> None:
    """Refuse a file whose lengths do not add up."""
    with open_regular(path) as (file, size):
        read = _Reader(file, size)
        read.expect("4s", b"IwSq")
        n = read.header(width)
        read.expect("<Q", n_lists)
        read.take("<Q")  # lists looked into, which each search says anew
        read.expect("4s", b"IxFI")
        if n > n_rows or read.header(width) != n_lists:
            raise ValueError(f"it has {n} vectors of {n_rows}")
        read.expect("<Q", n_lists * width)
        read.skip(4 * n_lists * width)
        read.expect("<B", 0)  # no map from rows to places
        read.expect("<Q", 0)
        read.expect("<i", 0)  # 8 bits a number
        read.take("<if")
        read.expect("<QQQ", width, width, 2 * width)
        read.skip(4 * 2 * width)
        read.expect("<Q", width)
        read.take("<B")
        read.expect("4s", b"ilar")
        read.expect("<QQ", n_lists, width)
        sizes = read.sizes(n_lists)
        if int(sizes.sum()) != n or read.at + n * (width + 8) != size:
            raise ValueError(f"its lists hold {int(sizes.sum())} vectors of {n}")


class _Reader:
    """A file that is read piece by piece, none beyond its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.at = 0

    def bytes(self, n: int) -> bytes:
        if n > self.size - self.at:
            raise ValueError("it is cut short")
        self.at += n
        return self.file.read(n)

    def skip(self, n: int) -> None:
        if n > self.size - self.at:
            raise ValueError("it is cut short")
        self.at += n
        self.file.seek(self.at)

    def take(self, form: str) -> tuple:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def expect(self, form: str, *values: object) -> None:
        start = self.at
        if (found := self.take(form)) != values:
            raise ValueError(f"at byte {start} it has {found} and not {values}")

    def header(self, width: int) -> int:
        """What every index of faiss begins with; the number of its vectors."""
        self.expect("<i", width)
        (n,) = self.take("<q")
        self.take("<qq")
        self.expect("<B", 1)  # trained
        self.expect("<i", 0)  # inner products
        if n < 0:
            raise ValueError(f"it has {n} vectors")
        return n

    def sizes(self, n_lists: int) -> np.ndarray:
        """Vectors in each list, or in each that has some."""
        (kind,), (n,) = self.take("4s"), self.take("<Q")
        if (kind, n) != (b"full", n_lists) and not (kind == b"sprs" and n <= 2 * n_lists and n % 2 == 0):
            raise ValueError(f"its {n_lists} lists are told by {kind!r} of {n}")
        found = np.frombuffer(self.bytes(8 * n), "<u8")
        if kind == b"sprs":
            places, found = found[::2], found[1::2]
            if (places >= n_lists).any() or len(np.unique(places)) < len(places):
                raise ValueError("its lists are told twice")
        if (found > np.uint64(self.size)).any():
            raise ValueError("a list is longer than the file")
        return found
