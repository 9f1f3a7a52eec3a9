"""Approximate search for large indexes: an inverted file of 8-bit vectors, whose recall is measured when it is made.

faiss takes the lengths in a file at their word. So every length is compared with what the index says of itself and
with the size of the file first; only the numbers between them are faiss's to read.
"""

from __future__ import annotations

import math
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float, Float32, Int
from pydantic import ConfigDict, Strict
from torch import Tensor

from ..errors import DataError, MissingExtraError
from ..results import Doc
from ..storage.folders import write_by
from ..storage.reading import file_sha256, open_regular, reason
from .vectors import BLOCK, Rows, exact_top

REFINE = 4
"""Candidates a result, each then compared exactly; 8-bit vectors alone end at a recall of 0.98."""
TIED = 1e-6
"""Products that differ by less are of rows that are as near."""
N_NEARER, NEARER = 100, 300
"""Nearest rows that are taken away from a query to make it one whose like is not in the index: so many at least, and
one in so many of all, as an index of crops, frames or copies has the more of a picture the larger it is."""
N_TRAIN = 48
"""Vectors a list that the lists' centres are fitted on; below 39 faiss warns."""

Matrix = Float32[np.ndarray, "n d"] | Rows
Size = Annotated[int, Strict(), Ge(0)]
Rate = Annotated[float, Strict(), Ge(0), Le(1)]


def load_faiss() -> Any:
    """The engine."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its generated wrappers, on every import
            import faiss
    except ImportError as error:
        raise MissingExtraError("search", "Approximate search") from error
    return faiss


def has_faiss() -> bool:
    """Whether the engine is there."""
    try:
        load_faiss()
    except MissingExtraError:
        return False
    return True


@dataclass(frozen=True)
class Calibration:
    """How good the approximate search is, measured on pictures it was not fitted on.

    ``recall`` is the lower end of a one-sided 95 % interval of the mean, on the worst kind of queries.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    recall: Annotated[Rate, Doc("part of the true nearest that are found, a lower bound")]
    recall_low: Annotated[Rate, Doc("of the 5 % of queries that fare worst, the best")]
    target: Annotated[Rate, Doc("that was asked for")]
    n_queries: Annotated[Size, Doc("measured on")]
    k: Annotated[Size, Doc("results of each")]
    n_lists: Annotated[Size, Le(1 << 24), Doc("of the inverted file")]
    n_probe: Annotated[Size, Ge(1), Doc("lists looked into")]
    n_rows: Annotated[Size, Doc("rows it covers; later ones are compared one by one")]

    def __post_init__(self) -> None:
        if self.n_probe > self.n_lists:
            raise ValueError(f"its approximate index looks into {self.n_probe} of {self.n_lists} lists")


class Approximate:
    """An inverted file over one column (faiss, ``IVF{4√n},SQ8``, inner product), with exact re-ranking.

    The engine's ids are rows.
    """

    def __init__(self, engine: Any, calibration: Calibration) -> None:
        self._engine = engine
        self.calibration = calibration

    @classmethod
    def build(
        cls,
        matrix: Matrix,
        rows: Int[np.ndarray, " m"],
        *,
        target: float = 0.95,
        k: int = 10,
        n_queries: int = 200,
        seed: int = 0,
    ) -> Approximate | None:
        """Fit the lists, fill them, and look into ever more of them until recall is reached; ``None`` where all do not.

        The queries are made of rows that take no part in fitting, of two kinds. Recall is reached when its lower bound
        is on each. What is found counts by its product, so that one of several equal rows is as good as another.
        """
        faiss = load_faiss()
        drawn = np.random.default_rng(seed).permutation(rows)
        queries, rest = np.sort(drawn[:n_queries]), drawn[n_queries:]
        n_lists = max(1, min(round(4 * math.sqrt(len(rows))), len(rest) // 39))
        width = matrix.shape[1]
        coarse = faiss.IndexFlatIP(width)
        engine = faiss.IndexIVFScalarQuantizer(
            coarse, width, n_lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        engine.cp.seed = seed + 1
        engine.train(np.ascontiguousarray(matrix[np.sort(rest[: N_TRAIN * n_lists])]))
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            engine.add_with_ids(np.ascontiguousarray(matrix[part]), part)
        kinds = _strangers(matrix, rows, queries, k), _between(matrix, rows, queries, k)
        n_probe = 1
        while True:
            begun = cls(engine, Calibration(0.0, 0.0, target, n_queries, k, n_lists, n_probe, len(matrix)))
            recalls = [torch.stack([begun._recall(matrix, query) for query in kind]) for kind in kinds]
            reached = min(map(_lower_bound, recalls))
            if reached >= target:
                low = round(min(float(recall.quantile(0.05)) for recall in recalls), 4)
                figures = math.floor(reached * 1e4) / 1e4, low, target, sum(map(len, recalls)), k
                return cls(engine, Calibration(*figures, n_lists, n_probe, len(matrix)))
            if n_probe == n_lists:
                return None
            n_probe = min(n_lists, max(n_probe + 1, round(n_probe * 1.4)))

    def _recall(self, matrix: Matrix, query: _Query) -> Tensor:
        """Part of the nearest that is found of those that are not taken away."""
        faiss, figures = load_faiss(), self.calibration
        others = faiss.IDSelectorNot(faiss.IDSelectorBatch(query.gone))
        scores, _ = self._search(matrix, query.vector[None], figures.k, nprobe=figures.n_probe, sel=others)
        return (scores[0] >= query.least - TIED).double().sum() / figures.k

    def top(
        self,
        matrix: Matrix,
        queries: Float[Tensor, "q d"],
        k: int,
        *,
        keep: Bool[np.ndarray, " n"] | None = None,
    ) -> tuple[Float[Tensor, "q j"], Int[Tensor, "q j"]]:
        """The ``k`` nearest as far as they are found, by exact products; where fewer are, ``-inf`` and the row -1.

        Where few rows are kept, more lists are looked into.
        """
        probes, options = self.calibration.n_probe, dict[str, Any]()
        if keep is not None:
            probes = math.ceil(probes / max(float(keep.mean()), 1 / self.calibration.n_lists))
            options["sel"] = load_faiss().IDSelectorBitmap(np.packbits(keep, bitorder="little"))
        return self._search(matrix, queries, k, nprobe=min(probes, self.calibration.n_lists), **options)

    def _search(
        self, matrix: Matrix, queries: Float[Tensor, "q d"], k: int, **how: Any
    ) -> tuple[Float[Tensor, "q j"], Int[Tensor, "q j"]]:
        parts, parameters = [], load_faiss().SearchParametersIVF(**how)
        for part in queries.split(64):
            vectors = np.ascontiguousarray(part.numpy(), np.float32)
            _, near = self._engine.search(vectors, REFINE * k, params=parameters)
            parts.append(_exactly(matrix, part, torch.from_numpy(near), k))
        return torch.cat([scores for scores, _ in parts]), torch.cat([rows for _, rows in parts])

    def save(self, path: Path) -> None:
        """Write to a file, whole or not at all."""
        try:
            write_by(path, lambda part: load_faiss().write_index(self._engine, str(part)))
        except (RuntimeError, OSError) as error:
            raise DataError(f"{path} cannot be written: {error}. Free some space on that disk.") from error

    @classmethod
    def load(cls, path: Path, calibration: Calibration, width: int, sha256: str = "") -> Approximate:
        """Read from a file, all of whose lengths are checked before; an earlier version kept no SHA-256 of it."""
        faiss = load_faiss()
        try:
            check_file(path, width=width, n_lists=calibration.n_lists, n_rows=calibration.n_rows)
            if sha256 and file_sha256(path) != sha256:
                raise ValueError("its SHA-256 is not the one kept in the index")
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP), calibration)
        except FileNotFoundError:
            raise
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(
                f"{path} is damaged ({reason(error)}). Make it again with: seewhy index -o {path.parent} --rebuild"
            ) from error


@dataclass(frozen=True)
class _Query:
    """One that a new picture could be, rows that count as never added, the product with the farthest to be found."""

    vector: Float[Tensor, " d"]
    gone: Int[np.ndarray, " g"]
    least: float


def _strangers(matrix: Matrix, rows: Int[np.ndarray, " m"], queries: Int[np.ndarray, " q"], k: int) -> list[_Query]:
    """Rows without the nearest of them, one in 300 of all and 100 at least, which a new picture has not there."""
    n_nearer = min(max(N_NEARER, len(rows) // NEARER), (len(rows) - len(queries)) // 2)
    vectors = torch.from_numpy(np.array(matrix[queries]))
    scores, near = exact_top(matrix, vectors, n_nearer + k + 1, None if len(rows) == len(matrix) else rows)
    strangers = []
    for vector, own, products, others in zip(vectors, queries, scores, near.numpy(), strict=True):
        gone = others[: n_nearer + 1].copy()
        gone[-1] = gone[-1] if own in gone else own  # of several equal rows its own may be any
        strangers.append(_Query(vector, gone, float(products[-1])))
    return strangers


def _between(matrix: Matrix, rows: Int[np.ndarray, " m"], queries: Int[np.ndarray, " q"], k: int) -> list[_Query]:
    """Points in the middle of four rows, which are as far from all as a new picture may be."""
    known = torch.from_numpy(np.array(matrix[queries]))
    middles = torch.nn.functional.normalize(torch.stack([known.roll(i, 0) for i in range(4)]).mean(0), dim=1)
    scores, _ = exact_top(matrix, middles, k, None if len(rows) == len(matrix) else rows)
    none = np.empty(0, np.int64)
    return [_Query(vector, none, float(products[-1])) for vector, products in zip(middles, scores, strict=True)]


def _lower_bound(recalls: Float[Tensor, " q"]) -> float:
    """Of the mean, one-sided, 95 %, as if one more query had found nothing; so it is never 1.

    Example:
        >>> round(_lower_bound(torch.ones(200)), 4)
        0.9868
    """
    counted = torch.cat([recalls, recalls.new_zeros(1)])
    return float(counted.mean() - 1.645 * counted.std() / math.sqrt(len(counted)))


def _exactly(
    matrix: Matrix, queries: Float[Tensor, "q d"], near: Int[Tensor, "q c"], k: int
) -> tuple[Float[Tensor, "q j"], Int[Tensor, "q j"]]:
    """Candidates in the order of their exact products; -1 marks a place that was not filled."""
    if len(near) and int(near.max()) >= len(matrix):
        raise DataError(
            f"The approximate index holds row {int(near.max())} of {len(matrix)}. Make it again with: seewhy index "
            "--rebuild"
        )
    vectors = torch.from_numpy(matrix[near.clamp(min=0).numpy()])
    scores = torch.einsum("qd,qcd->qc", queries, vectors).masked_fill(near < 0, -torch.inf)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :k], near.gather(1, order)[:, :k]


_HEADER = "<iqqqBi"
"""What every index of faiss begins with: width, vectors, two numbers not in use, trained, inner products."""


def check_file(path: Path, *, width: int, n_lists: int, n_rows: int) -> None:
    """Refuse a file that is no inverted file of 8-bit vectors as faiss writes it, all of it, with a ``ValueError``."""
    with open_regular(path) as (file, size):
        read = _Reader(file, size)
        read.expect("4s", b"IwSq")
        n = read.expect(_HEADER, width, None, None, None, 1, 0)[1]
        read.expect("<QQ", n_lists, None)  # and lists looked into, which each search says anew
        read.expect("4s", b"IxFI")
        read.expect(_HEADER, width, n_lists, None, None, 1, 0)
        read.expect("<Q", n_lists * width)
        read.take(4 * n_lists * width)
        read.expect("<BQ", 0, 0)  # no map from rows to places
        read.expect("<iif", 0, None, None)  # 8 bits a number
        read.expect("<QQQ", width, width, 2 * width)
        read.take(4 * 2 * width)
        read.expect("<QB", width, None)
        read.expect("4s", b"ilar")
        read.expect("<QQ", n_lists, width)
        kind, n_sizes = *read.expect("4s", None), *read.expect("<Q", None)
        is_sparse = kind == b"sprs" and n_sizes <= 2 * n_lists and n_sizes % 2 == 0
        if (kind, n_sizes) != (b"full", n_lists) and not is_sparse:
            raise ValueError(f"its {n_lists} lists are told by {kind!r} of {n_sizes}")
        sizes = np.frombuffer(read.take(8 * n_sizes), "<u8")
        if is_sparse:  # of those that hold some
            places, sizes = sizes[::2], sizes[1::2]
            if (places >= n_lists).any() or len(np.unique(places)) < len(places):
                raise ValueError("its lists are told twice")
        held = sum(sizes.tolist())
        if not 0 <= n <= n_rows or held != n or read.at + n * (width + 8) != size:
            raise ValueError(f"its lists hold {held} vectors of {n}, and the index has {n_rows}")


class _Reader:
    """A file that is read piece by piece, none beyond its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.at = file, size, 0

    def take(self, n: int) -> bytes:
        if n > self.size - self.at:
            raise ValueError("it is cut short")
        self.at += n
        return self.file.read(n)

    def expect(self, form: str, *values: object) -> tuple:
        """The next values; ``None`` stands for any."""
        start, there = self.at, struct.unpack(form, self.take(struct.calcsize(form)))
        if any(value is not None and value != found for value, found in zip(values, there, strict=True)):
            raise ValueError(f"at byte {start} it has {there} and not {values}")
        return there
