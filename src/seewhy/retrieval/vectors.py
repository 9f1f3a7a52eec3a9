"""The vectors of an index: files with checksums, whitening, and consistent snapshots."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import DataError, InputError
from ..heads.normalise import signed_power
from ..storage.archive import TensorArchive
from ..storage.folders import remove_inside, write_at
from ..storage.parts import check_finite, rebuilt
from ..storage.reading import UnreadableError, open_regular, reason
from ..undisturbed import undisturbed
from .catalogue import Catalogue

BLOCK = 16_384
"""Number of rows per matrix product."""


@dataclass(frozen=True)
class Column:
    """A file of vectors with one row per picture; the catalogue checks what its name is made of."""

    folder: Path
    name: str
    width: int
    generation: int

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}-{self.generation:06d}.f32"

    @property
    def sums(self) -> Path:
        return self.path.with_suffix(".crc")

    def append(self, first: int, vectors: Float[Tensor, "n d"]) -> None:
        """Write rows to disk from row ``first`` on."""
        data = np.ascontiguousarray(vectors.detach().cpu().numpy().astype("<f4", copy=False))
        self._write(self.path, first * self.width * 4, data)
        self._write(self.sums, first * 4, sums_of(data))

    def _write(self, path: Path, place: int, data: np.ndarray) -> None:
        try:
            write_at(path, place, data.data)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {reason(error)}. Free some space on that disk.") from error

    def rows(self, n: int) -> Rows:
        """Return the first ``n`` rows as a memory map."""
        if n == 0:
            return Rows(self.path, np.empty((0, self.width), np.float32), np.empty(0, "<u4"))
        return Rows(self.path, self._mapped(self.path, n), self._mapped(self.sums, n)[:, 0].view("<u4"))

    def _mapped(self, path: Path, n: int) -> Float32[np.ndarray, "n d"]:
        width = self.width if path == self.path else 1
        try:
            with open_regular(path) as (_, size):
                if size < n * width * 4:
                    raise UnreadableError(f"it is truncated: it must have {n} rows")
        except UnreadableError as error:
            raise DataError(f"{path} is damaged ({error}). Make the index again from the pictures.") from error
        # Readers must not write; with mode "c", torch wraps the pages without a warning.
        return np.memmap(path, "<f4", "c", shape=(n, width))

    def drop(self) -> None:
        """Delete the files, unless the system forbids it because a reader has one open."""
        for path in (self.path, self.sums):
            with contextlib.suppress(DataError):
                remove_inside(path)


def sums_of(rows: Float32[np.ndarray, "n d"]) -> np.ndarray:
    """Compute the CRC-32 of each row."""
    return np.fromiter(map(zlib.crc32, rows), "<u4", len(rows))


class Rows:
    """Rows of a memory map, each of which is checked when it is first read."""

    def __init__(self, path: Path, vectors: Float32[np.ndarray, "n d"], sums: np.ndarray) -> None:
        self.path, self._vectors, self._sums = path, vectors, sums
        self.shape = vectors.shape
        self._unchecked = np.full(len(vectors), True)

    def __len__(self) -> int:
        return len(self._vectors)

    def trust(self, before: Rows | None) -> Rows:
        """Mark the rows that ``before`` has checked as checked."""
        if before is not None and before.path == self.path:
            n = min(len(before), len(self))
            self._unchecked[:n] &= before._unchecked[:n]
        return self

    def __getitem__(self, rows: Any) -> Float32[np.ndarray, "*m d"]:
        """Return rows by a numpy index; rows that were not read before are checked."""
        if self._unchecked[rows].any():
            wanted = np.unique(np.arange(len(self))[rows])
            if len(wrong := self.check(wanted[self._unchecked[wanted]])):
                raise DataError(
                    f"{self.path} is damaged: row {wrong[0] + 1} does not match its checksum. Make the index again "
                    "from the pictures."
                )
        return self._vectors[rows]

    def check(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " w"]:
        """Return the rows that do not match their checksums."""
        whole = np.fromiter(map(zlib.crc32, self._each(rows)), np.uint32, len(rows)) == self._sums[rows]
        self._unchecked[rows[whole]] = False
        return rows[~whole]

    def _each(self, rows: Int[np.ndarray, " m"]) -> Iterator[memoryview]:
        data, size = self._vectors.data.cast("B"), self._vectors.itemsize * self._vectors.shape[1]
        return (data[row * size : (row + 1) * size] for row in rows.tolist())


@dataclass(frozen=True)
class Nearest:
    """The result of a search: inner products in descending order, and their rows."""

    scores: Float[Tensor, " j"]
    rows: Int[Tensor, " j"]


def exact_top(
    matrix: Float32[np.ndarray, "n d"] | Rows, query: Float[Tensor, " d"], k: int, rows: Int[np.ndarray, " m"]
) -> Nearest:
    """Return the ``k`` largest inner products of a query with ascending rows, in blocks of bounded memory.

    Example:
        >>> exact_top(np.eye(3, dtype=np.float32), torch.tensor([0.1, 0.9, 0.0]), 2, np.arange(3)).rows.tolist()
        [1, 0]
    """
    best, where = torch.empty(0), torch.empty(0, dtype=torch.long)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        first, end = int(part[0]), int(part[-1]) + 1
        # Neighbours in one piece, since a copy row by row costs five times as much.
        block = matrix[first:end] if end - first == len(part) else np.asarray(matrix[part])
        scores, at = (query[None] @ torch.from_numpy(block).T)[0].topk(min(k, len(block)))
        best, order = torch.cat([best, scores]).sort(descending=True, stable=True)
        best, where = best[:k], torch.cat([where, torch.from_numpy(part)[at]])[order][:k]
    return Nearest(best, where)


N_MOST = 20_000
"""Largest number of vectors to which whitening is fitted, and of those from which a mean is computed."""


@dataclass(frozen=True)
class Whitening:
    """A whitening of unit vectors by PCA (paper, section 4).

    The steps are: scaling to unit length, PCA, whitening, unit length, signed power, unit length. The whitening
    multiplies each component by

        1 / sqrt(λ + floor · λ_1)

    where ``λ`` is the variance of the component and ``λ_1`` the largest variance. Where we differ: the paper has
    ``floor=0`` and ``power=2``; docs/search.md has measurements.
    """

    mean: Float[Tensor, " d"]
    matrix: Float[Tensor, "d n"]
    power: float = 1.0

    @classmethod
    def fit(
        cls, vectors: Float[Tensor, "m d"], n_components: int = 256, floor: float = 0.1, power: float = 1.0
    ) -> Whitening:
        """Fit the whitening to unit vectors of reference pictures."""
        if len(vectors) < 3:
            raise InputError(f"Whitening needs at least 3 vectors, got {len(vectors)}. Add pictures first.")
        if floor < 0 or power <= 0:
            raise InputError(
                f"`floor` must be at least 0 and `power` greater than 0, got floor={floor} and power={power}."
            )
        mean = vectors.mean(0)
        centred = vectors - mean
        variance, axes = torch.linalg.eigh(centred.T @ centred / (len(vectors) - 1))
        n = min(n_components, len(vectors) - 1, vectors.shape[1])
        variance, axes = variance.flip(0)[:n].clamp(min=0), axes.flip(1)[:, :n]
        scale = (variance + floor * variance[0]).clamp(min=1e-12).rsqrt()
        return cls(mean, axes * scale, power)

    def __call__(self, vectors: Float[Tensor, "*m d"]) -> Float[Tensor, "*m n"]:
        """Whiten vectors and scale them to unit length."""
        white = normalize((normalize(vectors, dim=-1) - self.mean) @ self.matrix, dim=-1)
        return white if self.power == 1 else normalize(signed_power(white, self.power), dim=-1)

    def save(self, path: Path, *, force: bool = False) -> Path:
        """Save to a file; ``force`` overwrites a file that SeeWhy did not make."""
        tensors = {"mean": self.mean, "matrix": self.matrix, "power": torch.tensor(self.power)}
        return ARCHIVE.save(path, tensors, force=force)

    @classmethod
    def load(cls, path: Path) -> Whitening:
        return ARCHIVE.load(path, _assemble)


ARCHIVE = TensorArchive(otherwise="no whitening", again="Make the index again from the pictures.", error=DataError)


def _assemble(_card: dict[str, Any], found: dict[str, Tensor]) -> Whitening:
    check_finite(found)
    whitening = rebuilt(Whitening, found, power=float(found["power"]))
    if not whitening.power > 0:
        raise ValueError(f"its power is {whitening.power}")
    return replace(whitening, mean=whitening.mean.float(), matrix=whitening.matrix.float())


@dataclass(frozen=True)
class Snapshot:
    """A consistent view of the index that later writes do not change.

    Attributes:
        version: number of the last write.
        n_rows: number of written rows.
        rows: rows in use, in ascending order.
        columns: the columns by name.
        matrices: the vectors of each column.
        whitening: whitening that computes the column ``"whitened"`` from the column ``"look"``, or ``None``.
    """

    version: int
    n_rows: int
    rows: Int[np.ndarray, " n"]
    columns: dict[str, Column]
    matrices: dict[str, Rows]
    whitening: Whitening | None

    @classmethod
    @undisturbed
    def of(cls, catalogue: Catalogue, before: Snapshot | None = None) -> Snapshot:
        """Take a snapshot inside :meth:`Catalogue.reading`.

        Raises:
            FileNotFoundError: a file is missing, for example because a writer has just replaced it.
        """
        whitening = catalogue.get("whitening")
        n_rows, folder, columns, matrices = catalogue.get("n_rows", 0), catalogue.folder, columns_of(catalogue), {}
        for name, column in columns.items():
            earlier = None if before is None else before.matrices.get(name)
            matrices[name] = column.rows(n_rows).trust(earlier)
        white = None
        if whitening is not None:
            path = folder / whitening["file"]
            white = Whitening.load(path)
            if "whitened" not in columns or white.matrix.shape != (columns["look"].width, columns["whitened"].width):
                raise DataError(
                    f"The whitening matrix in {path} has the shape {tuple(white.matrix.shape)}, which does not fit "
                    "the index. Make the index again from the pictures."
                )
        return cls(catalogue.get("version", 0), n_rows, catalogue.rows(), columns, matrices, white)

    def check_width(self, column: str, width: int) -> None:
        own = self.columns[column].width if column in self.columns else 0
        if own != width:
            folder = self.columns["look"].folder
            raise DataError(
                f"The index {folder} is damaged: its vectors in {column!r} must have the dimension {width}, got {own}. "
                "Make it again from the pictures."
            )

    @property
    def main(self) -> str:
        """The name of the column that searches use."""
        return "look" if self.whitening is None else "whitened"

    def mean(self, column: str) -> Float[Tensor, " d"]:
        """Compute the mean of the stored vectors in a column, over a sample of pictures."""
        return self.spread(column).mean(0)

    def spread(self, column: str) -> Float[Tensor, "n d"]:
        """Return up to ``N_MOST`` vectors, evenly spread over the index."""
        some = self.rows[np.linspace(0, len(self.rows) - 1, min(len(self.rows), N_MOST)).astype(np.int64)]
        return torch.from_numpy(np.array(self.matrices[column][some]))

    @undisturbed
    def top(
        self, column: str, query: Float[Tensor, " d"], k: int, *, rows: Int[np.ndarray, " m"] | None = None
    ) -> Nearest:
        """Return up to ``k`` nearest rows; ``rows`` restricts the search and must be in ascending order."""
        found = exact_top(self.matrices[column], query, k, self.rows if rows is None else rows)
        if not bool(found.scores.isfinite().all()):
            raise DataError(f"{self.columns[column].path} has NaN or infinity. Make the index again from the pictures.")
        return found


def columns_of(catalogue: Catalogue) -> dict[str, Column]:
    return {name: Column(catalogue.folder, name, *shape) for name, shape in catalogue.need("columns").items()}
