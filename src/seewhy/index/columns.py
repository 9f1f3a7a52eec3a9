"""Vectors of an index on disk: a flat file of float32 rows a column, mapped into memory, only ever appended to.

A row counts once the catalogue has committed it. What a killed writer left behind it is overwritten by the next one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

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

    def append(self, first: int, vectors: Float[Tensor, "n d"]) -> None:
        """Write rows from row ``first`` on, and have them on the disk before returning.

        Raises:
            DataError: the disk is full or read-only.
        """
        data = vectors.detach().cpu().numpy().astype("<f4", copy=False)
        try:
            write_at(self.path, first * self.width * 4, np.ascontiguousarray(data).data)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error}. Free some space on that disk.") from error

    def rows(self, n: int) -> Float32[np.ndarray, "n d"]:
        """The first ``n`` rows, mapped, read-only.

        Raises:
            DataError: the file is shorter than the catalogue says.
            FileNotFoundError: there is no such file, for example because it was just replaced by a newer generation.
        """
        if n == 0:
            return np.empty((0, self.width), np.float32)
        try:
            with open_regular(self.path) as (_, size):
                if size < n * self.width * 4:
                    raise UnreadableError(f"it is cut short: {n} rows were expected")
        except UnreadableError as error:
            raise DataError(f"{self.path} is damaged ({error}). Make the index again from the pictures.") from error
        # A reader who meant to write would be a mistake; mode "c" lets torch wrap the pages without a warning.
        return np.memmap(self.path, "<f4", "c", shape=(n, self.width))

    def drop(self) -> None:
        """Delete the file; where a reader still has it open and the system forbids it, the next clearing will."""
        with contextlib.suppress(DataError):
            remove_inside(self.path)


def exact_top(
    matrix: Float32[np.ndarray, "n d"],
    queries: Float[Tensor, "q d"],
    k: int,
    rows: Int[np.ndarray, " m"] | None = None,
) -> tuple[Float[Tensor, "q j"], Int[Tensor, "q j"]]:
    """The ``k`` largest inner products, every row looked at: block by block, so memory does not grow with ``n``.

    Args:
        matrix: vectors.
        queries: one a row.
        k: how many; fewer come back where there are fewer.
        rows: the rows that count, rising; left out, all.

    Returns:
        Products, falling, and their rows.

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


def _gather(matrix: Float32[np.ndarray, "n d"], rows: Int[np.ndarray, " m"]) -> Float32[np.ndarray, "m d"]:
    """Rows as a plain array; neighbours in one piece, since a copy row by row costs five times as much."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return matrix[first : last + 1]
    return np.asarray(matrix[rows])
