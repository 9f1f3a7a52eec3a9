"""Fit of EPIC's rotation in closed form, and application of the inverse rotation in the head.

The purity of a channel (arXiv 2505.12897) is the cosine of its direction with the features at its maximum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...bounds import Checked, Count, NotNegative
from ...errors import ModelError
from ...heads.head import Head, Target
from ..cells import CellMaps, CellPart

FLOOR = 1e-8
"""Smallest vector length to divide by, as in the paper's code."""
TOLERANCE = 1e-4
"""Largest relative difference of the logits after the rotation."""

Maps = CellMaps | CellPart
"""Grid cells of pictures; ``pooled`` is the mean over the grid cells of each picture."""
Matrix = Float[Tensor, "d d"]
"""An orthogonal matrix ``U`` from old to new channels, or its factors."""


def random_rotation(width: int, seed: int) -> Matrix:
    """Sample a uniform random orthogonal matrix, for comparison with the fitted matrix."""
    noise = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    matrix, upper = torch.linalg.qr(noise)
    return matrix * upper.diagonal().sign()


def polar(matrix: Matrix) -> Matrix:
    """Return the orthogonal polar factor of a matrix, ``P Qᵀ`` of its SVD (Schönemann 1966)."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def strongest(
    pooled: Float[Tensor, "n d"], rotation: Float[Tensor, "k d"], m: int, sign: int = 1
) -> Int[Tensor, "k m"]:
    """Return the ``m`` pictures with the largest activation of each channel, or the smallest for ``sign=-1``."""
    return (sign * pooled @ rotation.T).topk(min(m, len(pooled)), dim=0).indices.T


class Peaks(NamedTuple):
    """The grid cells at which channels are most active on one picture.

    Attributes:
        ranks: rank of the picture among the prototypes of each channel.
        cells: index of the grid cell with the maximum.
        vectors: features of that grid cell before the rotation.
    """

    picture: int
    channels: Int[Tensor, " p"]
    ranks: Int[Tensor, " p"]
    cells: Int[Tensor, " p"]
    vectors: Float[Tensor, "p d"]


def peaks(maps: Maps, rotation: Float[Tensor, "k d"], of: Int[Tensor, "k m"], sign: int = 1) -> Iterator[Peaks]:
    """Yield the positions at which channels are most active on their prototypes or, for ``sign=-1``, least active."""
    flat = of.reshape(-1)
    order = flat.argsort(stable=True)
    start = 0
    for picture, count in enumerate(torch.bincount(flat, minlength=len(maps)).tolist()):
        if not count:
            continue
        pairs = order[start : start + count]
        start += count
        channels, ranks = pairs // of.shape[1], pairs % of.shape[1]
        cells = maps[picture]
        at = (sign * cells @ rotation[channels].T).argmax(0)
        yield Peaks(picture, channels, ranks, at, cells[at])


def pure_cells(
    maps: Maps, rotation: Matrix, of: Int[Tensor, "d m"], sign: int = 1
) -> tuple[Int[Tensor, "d m"], Float[Tensor, "d m"]]:
    """Return the grid cell where each channel is most active on its prototypes, and the purity of the channel there.

        purity = p_k / ‖p‖

    - ``p``: the rotated features of the grid cell; ``k`` is the channel.

    The purity is -1 to 1. At 1, only channel ``k`` is active.
    """
    cells, pure = torch.zeros_like(of), torch.zeros(of.shape)
    for at in peaks(maps, rotation, of, sign):
        own = sign * (at.vectors * rotation[at.channels]).sum(1)
        cells[at.channels, at.ranks] = at.cells
        pure[at.channels, at.ranks] = own / at.vectors.norm(dim=1).clamp(min=FLOOR)  # a rotation keeps lengths
    return cells, pure


def mean_unit_peaks(
    maps: Maps, rotation: Float[Tensor, "k d"], of: Int[Tensor, "k m"], weights: Float[Tensor, " m"] | None = None
) -> Float[Tensor, "k d"]:
    """Return the mean normalised features of the grid cells where each channel is most active, weighted by rank."""
    by_rank = torch.full(of.shape[1:], 1 / of.shape[1]) if weights is None else weights
    mean = torch.zeros(rotation.shape)
    for at in peaks(maps, rotation, of):
        unit = at.vectors / at.vectors.norm(dim=1, keepdim=True).clamp(min=FLOOR)
        mean.index_add_(0, at.channels, unit * by_rank[at.ranks][:, None])
    return mean


@dataclass(frozen=True)
class Procrustes(Checked):
    """Alternating optimisation of the prototypes and of an orthogonal ``U``.

    For fixed prototypes,

        mean purity = <U, A> / d

    - ``U``: the orthogonal matrix; ``<U, A>`` is the sum of elementwise products.
    - ``A``: row ``k`` is the mean normalised feature vector of the grid cells where channel ``k`` is most active.
    - ``d``: the number of channels.

    The best orthogonal matrix is the polar factor of ``A + λ I``, where ``λ`` is the shrinkage and ``I`` the identity.
    ``A`` is averaged over several numbers of prototypes, which gives purer channels on held-out pictures
    (docs/methods/epic.md). Where we differ: the paper optimises ``U`` by Adam.

    Args:
        n_prototypes: number of pictures per channel.
        scales: multiples of ``n_prototypes`` over which ``A`` is averaged.
        shrinkage: ``λ``, shrinkage towards no rotation; 0 maximises the purity on the training pictures.
        n_rotated: number of channels to rotate, those with the largest mean square activation; ``None`` rotates all.
        n_rounds: number of iterations.
    """

    name = "procrustes"

    n_prototypes: Count = 20
    shrinkage: NotNegative = 0.2
    n_rotated: int | None = None
    n_rounds: Count = 4
    scales: tuple[float, ...] = (0.25, 1.0, 2.0)

    def rounds(self, maps: Maps) -> Iterator[Matrix]:
        width = maps.pooled.shape[1]
        moved, matrix = self._moved(maps.pooled), torch.eye(width)
        counts = [max(1, round(scale * self.n_prototypes)) for scale in self.scales]
        for _ in range(self.n_rounds):
            prototypes = strongest(maps.pooled, matrix[moved], max(counts))
            n = prototypes.shape[1]
            # The weight of each rank: 1/c for the first c prototypes, averaged over the counts c.
            weights = torch.stack([(torch.arange(n) < c) / min(c, n) for c in counts]).mean(0)
            wanted = mean_unit_peaks(maps, matrix[moved], prototypes, weights)[:, moved]
            matrix = torch.eye(width)
            matrix[moved[:, None], moved] = polar(wanted + self.shrinkage * torch.eye(len(moved)))
            yield matrix

    def fit(self, maps: Maps) -> Matrix:
        *_, last = self.rounds(maps)
        return last

    def _moved(self, pooled: Float[Tensor, "n d"]) -> Tensor:
        width = pooled.shape[1]
        if self.n_rotated is None or self.n_rotated >= width:
            return torch.arange(width)
        return pooled.square().mean(0).topk(max(2, self.n_rotated)).indices.sort().values


def folded_logits(
    head: Head, rotation: Matrix, pooled: Float[Tensor, "b d"], cells: Float[Tensor, "b s d"]
) -> Float[Tensor, "b k"]:
    """Compute the logits ``A' mean(U Z) + b'`` from grid cells ``Z`` after the rotation ``U``.

    ``A' = A Uᵀ``, where ``A`` is the head's slope minus its mean over classes (:meth:`Head.slope`). ``b'`` is the
    intercept, which depends on the picture.
    """
    logits, rotated, folded = head(pooled), (cells @ rotation.T).mean(1), []
    for k in range(logits.shape[1]):
        weight = head.slope(pooled, Target(torch.full((len(pooled),), k)))
        folded.append(logits[:, k] + ((weight @ rotation.T) * rotated).sum(1) - (weight * pooled).sum(1))
    return torch.stack(folded, 1)


class FoldCheck(NamedTuple):
    """The largest relative difference of original and rotated logits, and the share of equal predictions."""

    difference: float
    agreement: float


def check_fold(head: Head, rotation: Matrix, pooled: Float[Tensor, "b d"], cells: Float[Tensor, "b s d"]) -> FoldCheck:
    """Check that the logits after the rotation equal the model's logits, up to rounding."""
    with torch.no_grad():
        own, folded = head(pooled), folded_logits(head, rotation, pooled, cells)
    difference = float((own - folded).abs().max() / own.abs().max().clamp(min=1e-12))
    if not difference < TOLERANCE:
        raise ModelError(
            f"The rotation must change the logits by at most {TOLERANCE:g} of the largest logit, got "
            f"{difference:.1e}. Use --like nearest."
        )
    return FoldCheck(difference, float((own.argmax(1) == folded.argmax(1)).float().mean()))
