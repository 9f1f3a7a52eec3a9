"""What a search sees: one finished step of the index, whatever a writer does meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError
from ..storage.folders import inside
from ..undisturbed import undisturbed
from .approximate import Approximate, Calibration, has_faiss
from .catalogue import Catalogue
from .vectors import Column, Rows, Whitening, exact_top

WHITENING = r"whitening-[0-9a-f]+\.safetensors"
APPROXIMATE = r"approximate-[0-9a-f]+\.faiss"
"""Names of an index's files beside its columns."""
N_EXACT = 50_000
"""So few rows are searched exactly even where an approximate index is there: it costs less than 20 ms."""
N_MEAN = 20_000
"""Vectors that a column's mean is taken of."""


@dataclass(frozen=True)
class Nearest:
    """What a search found: inner products, falling, their rows, and whether every row was compared."""

    scores: Float[Tensor, " j"]
    rows: Int[Tensor, " j"]
    exact: bool


@dataclass(frozen=True)
class Snapshot:
    """What a search sees, whatever a writer does meanwhile: one finished step of the index.

    Of ``n_rows`` written, ``rows`` are in use, rising; ``matrices`` are the columns' vectors. ``whitening`` made
    ``"whitened"`` of ``"look"``; ``approximate`` covers the column ``built``, in large indexes.
    """

    version: int
    n_rows: int
    rows: Int[np.ndarray, " n"]
    columns: dict[str, Column]
    matrices: dict[str, Rows]
    whitening: Whitening | None
    built: str | None
    approximate: Approximate | None

    @classmethod
    @undisturbed
    def of(cls, catalogue: Catalogue, before: Snapshot | None = None) -> Snapshot:
        """The last finished step, inside :meth:`Catalogue.reading`; what an earlier one checked is not checked again.

        ``FileNotFoundError`` where a file is missing, for example because a writer has just replaced it.
        """
        built, whitening = catalogue.get("approximate"), catalogue.get("whitening")
        n_rows, folder, columns, matrices = catalogue.get("n_rows", 0), catalogue.folder, columns_of(catalogue), {}
        for name, column in columns.items():
            earlier = None if before is None else before.matrices.get(name)
            matrices[name] = column.rows(n_rows, has_sums=catalogue.has_sums).trust(earlier)
        white, fast = None, None
        if whitening is not None:
            path = inside(folder, whitening["file"], WHITENING)
            white = Whitening.load(path)
            if "whitened" not in columns or white.matrix.shape != (columns["look"].width, columns["whitened"].width):
                raise DataError(
                    f"{path} is of other vectors than those of the index: {tuple(white.matrix.shape)}. Make the index "
                    "again from the pictures."
                )
        if built is not None and built["column"] in columns and has_faiss():  # without it every row is compared
            path, width = inside(folder, built["file"], APPROXIMATE), columns[built["column"]].width
            fast = Approximate.load(path, Calibration(**built["calibration"]), width, built.get("sha256", ""))
        version, rows = catalogue.get("version", 0), catalogue.rows()
        return cls(version, n_rows, rows, columns, matrices, white, built and built["column"], fast)

    def check_width(self, column: str, width: int) -> None:
        """Refuse numbers that are not of a column's rows."""
        own = self.columns[column].width if column in self.columns else 0
        if own != width:
            folder = self.columns["look"].folder
            raise DataError(
                f"The index {folder} has rows of {own} numbers in {column!r}, and its encoder makes {width}. It is "
                "damaged: make it again from the pictures."
            )

    @property
    def main(self) -> str:
        """The column that pictures are searched in."""
        return "look" if self.whitening is None else "whitened"

    def mean(self, column: str) -> Float[Tensor, " d"]:
        """The mean vector of a column, over pictures spread through the index."""
        return self.spread(column, N_MEAN).mean(0)

    def spread(self, column: str, most: int) -> Float[Tensor, "n d"]:
        """Vectors of so many pictures at most, evenly through the index."""
        some = self.rows[np.linspace(0, len(self.rows) - 1, min(len(self.rows), most)).astype(np.int64)]
        return torch.from_numpy(np.array(self.matrices[column][some]))

    @undisturbed
    def top(
        self,
        column: str,
        query: Float[Tensor, " d"],
        k: int,
        *,
        rows: Int[np.ndarray, " m"] | None = None,
        exact: bool = False,
    ) -> Nearest:
        """The ``k`` nearest of those rows that count, rising, or of all in use; fewer where there are fewer."""
        wanted = self.rows if rows is None else rows
        fast = self.approximate if self.built == column else None
        if exact or fast is None or len(wanted) <= N_EXACT:
            every = len(wanted) == self.n_rows
            scores, at = exact_top(self.matrices[column], query[None], k, None if every else wanted)
            matches = Nearest(scores[0], at[0], True)
        else:
            matches = self._approximately(fast, column, query, k, wanted)
        if not bool(matches.scores.isfinite().all()):
            raise DataError(
                f"{self.columns[column].path} holds numbers that are not finite. Make the index again from the "
                "pictures."
            )
        return matches

    def _approximately(
        self, fast: Approximate, column: str, query: Float[Tensor, " d"], k: int, wanted: Int[np.ndarray, " m"]
    ) -> Nearest:
        """The covered rows by the approximate index, later ones exactly."""
        covered = fast.calibration.n_rows
        keep = None
        if len(wanted) < self.n_rows:
            keep = np.zeros(covered, bool)
            keep[wanted[wanted < covered]] = True
        scores, rows = fast.top(self.matrices[column], query[None], k, keep=keep)
        later = wanted[wanted >= covered]
        if len(later):
            more, at = exact_top(self.matrices[column], query[None], k, later)
            scores, rows = torch.cat([scores, more], 1), torch.cat([rows, at], 1)
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            rows = rows.gather(1, order)
        real = (rows[0] >= 0).nonzero()[:k, 0]
        return Nearest(scores[0][real], rows[0][real], False)


def columns_of(catalogue: Catalogue) -> dict[str, Column]:
    """The columns that a catalogue names."""
    return {name: Column(catalogue.folder, name, *shape) for name, shape in catalogue.need("columns").items()}


def check_names(catalogue: Catalogue) -> None:
    """See that what an index names as its files are names of files in its folder."""
    for column in columns_of(catalogue).values() if catalogue.get("columns") else ():
        _ = column.path
    for key, pattern in (("whitening", WHITENING), ("approximate", APPROXIMATE)):
        if (entry := catalogue.get(key)) is not None:
            inside(catalogue.folder, entry["file"], pattern)
