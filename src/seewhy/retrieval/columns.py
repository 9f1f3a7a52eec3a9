"""Vectors of an index on disk: a flat file of float32 rows a column, mapped into memory, only ever appended to.

A row counts once the catalogue has committed it. What a killed writer left behind it is overwritten by the next one.
Beside the rows lies a file with the CRC-32 of each, by which a row is checked when a process first reads it.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from ..errors import DataError
from ..storage.folders import inside, remove_inside, write_at
from ..storage.reading import UnreadableError, open_regular

BLOCK = 16_384
"""Rows multiplied at once: large enough for a fast product, small enough to stay in memory."""


@dataclass(frozen=True)
class Column:
    """One kind of vector of every picture.

    Attributes:
        folder: the index's.
        name: for example ``"look"``.
        width: numbers a row.
        generation: grows when deleted rows are cleared away and the file is written anew.
    """

    folder: Path
    name: str
    width: int
    generation: int

    @property
    def path(self) -> Path:
        return inside(self.folder, f"{self.name}-{self.generation:06d}.f32", r"[a-z0-9_]+-[0-9]{6,}\.f32")

    @property
    def sums(self) -> Path:
        return inside(self.folder, self.path.with_suffix(".crc").name, r"[a-z0-9_]+-[0-9]{6,}\.crc")

    def append(self, first: int, vectors: Float[Tensor, "n d"]) -> None:
        """Write rows from row ``first`` on, and have them on the disk before returning."""
        data = np.ascontiguousarray(vectors.detach().cpu().numpy().astype("<f4", copy=False))
        self._write(self.path, first * self.width * 4, data)
        self._write(self.sums, first * 4, sums_of(data))

    def add_sums(self, n: int) -> None:
        """The sums of the first ``n`` rows as they are, where an earlier version wrote none."""
        for start in range(0, n, BLOCK):
            self._write(self.sums, start * 4, sums_of(np.array(self._mapped(self.path, n)[start : start + BLOCK])))

    def _write(self, path: Path, place: int, data: np.ndarray) -> None:
        try:
            write_at(path, place, data.data)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error}. Free some space on that disk.") from error

    def rows(self, n: int, *, has_sums: bool) -> Rows:
        """The first ``n`` rows, mapped."""
        if n == 0:
            return Rows(self.path, np.empty((0, self.width), np.float32), None)
        sums = self._mapped(self.sums, n)[:, 0].view("<u4") if has_sums else None
        return Rows(self.path, self._mapped(self.path, n), sums)

    def _mapped(self, path: Path, n: int) -> Float32[np.ndarray, "n d"]:
        width = self.width if path == self.path else 1
        try:
            with open_regular(path) as (_, size):
                if size < n * width * 4:
                    raise UnreadableError(f"it is cut short: {n} rows were expected")
        except UnreadableError as error:
            raise DataError(f"{path} is damaged ({error}). Make the index again from the pictures.") from error
        # A reader who meant to write would be a mistake; mode "c" lets torch wrap the pages without a warning.
        return np.memmap(path, "<f4", "c", shape=(n, width))

    def drop(self) -> None:
        """Delete the files; where a reader still has one open and the system forbids it, the next clearing will."""
        for path in (self.path, self.sums):
            with contextlib.suppress(DataError):
                remove_inside(path)


def sums_of(rows: Float32[np.ndarray, "n d"]) -> np.ndarray:
    """CRC-32 of each row."""
    return np.fromiter(map(zlib.crc32, rows), "<u4", len(rows))


class Rows:
    """Rows of a column, of which each is checked when it is first read, whoever reads it.

    Args:
        path: their file, for messages.
        vectors: the rows, mapped.
        sums: CRC-32 of each; ``None`` checks nothing.
    """

    def __init__(self, path: Path, vectors: Float32[np.ndarray, "n d"], sums: np.ndarray | None) -> None:
        self.path, self._vectors, self._sums = path, vectors, sums
        self.shape = vectors.shape
        self._unchecked = np.full(len(vectors), sums is not None)

    def __len__(self) -> int:
        return len(self._vectors)

    def trust(self, before: Rows | None) -> Rows:
        """Rows that an earlier look at the same file has checked are not checked again."""
        if before is not None and before.path == self.path:
            n = min(len(before), len(self))
            self._unchecked[:n] &= before._unchecked[:n]
        return self

    def __getitem__(self, rows: Any) -> Float32[np.ndarray, "*m d"]:
        """Rows by any index that numpy takes."""
        if self._unchecked[rows].any():
            wanted = np.unique(np.arange(len(self))[rows])
            if len(wrong := self.check(wanted[self._unchecked[wanted]])):
                raise DataError(
                    f"{self.path} is damaged (its row {wrong[0] + 1} is not as it was written). Make the index again "
                    "from the pictures."
                )
        return self._vectors[rows]

    def check(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " w"]:
        """Those of the rows that are not as they were written."""
        if self._sums is None:
            return rows[:0]
        whole = np.fromiter(map(zlib.crc32, self._each(rows)), np.uint32, len(rows)) == self._sums[rows]
        self._unchecked[rows[whole]] = False
        return rows[~whole]

    def _each(self, rows: Int[np.ndarray, " m"]) -> Iterator[memoryview]:
        data, size = self._vectors.data.cast("B"), self._vectors.itemsize * self._vectors.shape[1]
        return (data[row * size : (row + 1) * size] for row in rows.tolist())


def exact_top(
    matrix: Float32[np.ndarray, "n d"] | Rows,
    queries: Float[Tensor, "q d"],
    k: int,
    rows: Int[np.ndarray, " m"] | None = None,
) -> tuple[Float[Tensor, "q j"], Int[Tensor, "q j"]]:
    """The ``k`` largest inner products, every row looked at: block by block, so memory does not grow with ``n``.

    Example:
        >>> score, row = exact_top(np.eye(3, dtype=np.float32), torch.tensor([[0.1, 0.9, 0.0]]), 2)
        >>> row.tolist()
        [[1, 0]]
    """
    total = len(matrix) if rows is None else len(rows)
    best = torch.empty(len(queries), 0)
    where = torch.empty(len(queries), 0, dtype=torch.long)
    for start in range(0, total, BLOCK):
        part = slice(start, min(start + BLOCK, total))
        block = matrix[part] if rows is None else _gather(matrix, rows[part])
        scores, at = (queries @ torch.from_numpy(block).T).topk(min(k, len(block)), dim=1)
        found = at + start if rows is None else torch.from_numpy(rows[part])[at]
        best, where = torch.cat([best, scores], 1), torch.cat([where, found], 1)
        best, order = best.sort(dim=1, descending=True, stable=True)
        best, where = best[:, :k], where.gather(1, order)[:, :k]
    return best, where


def _gather(matrix: Float32[np.ndarray, "n d"] | Rows, rows: Int[np.ndarray, " m"]) -> Float32[np.ndarray, "m d"]:
    """Rows as a plain array; neighbours in one piece, since a copy row by row costs five times as much."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return matrix[first : last + 1]
    return np.asarray(matrix[rows])
