"""The rotation behind a feature map: purity, how it is maximised in closed form, and the head that it is folded into.

Purity (EPIC, arXiv 2505.12897) is how alone a channel is at the place where it is strongest. The matrix that makes
channels pure has its inverse folded into the head, so that no logit changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...bounds import Count, NotNegative, check_fields
from ...errors import ModelError
from ...heads.head import Head, Target
from ..cells import CellMaps, CellPart

FLOOR = 1e-8
"""Smallest length a vector is divided by, as in the paper's code."""
TOLERANCE = 1e-4
"""Largest difference of a folded logit, as a part of the largest logit."""


Maps = CellMaps | CellPart
"""Cells of pictures; the mean over the cells of each is ``pooled``."""


@dataclass(frozen=True, eq=False)
class Rotation:
    """``U``, whose row ``k`` reads channel ``k`` of the new map, and its inverse, the transpose of an orthogonal one.

    ``form`` is ``"orthogonal"``, or ``"invertible"`` in banks of earlier versions.
    """

    matrix: Float[Tensor, "d d"]
    inverse: Float[Tensor, "d d"]
    form: str = "orthogonal"

    @classmethod
    def identity(cls, width: int) -> Rotation:
        return cls.orthogonal(torch.eye(width))

    @classmethod
    def orthogonal(cls, matrix: Float[Tensor, "d d"]) -> Rotation:
        return cls(matrix, matrix.T)

    @classmethod
    def random(cls, width: int, seed: int) -> Rotation:
        """A random orthogonal matrix, uniform: the control."""
        noise = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
        matrix, upper = torch.linalg.qr(noise)
        return cls.orthogonal(matrix * upper.diagonal().sign())

    @property
    def error(self) -> float:
        """Largest entry of ``U U⁻¹ − 1``."""
        return float((self.matrix @ self.inverse - torch.eye(len(self.matrix))).abs().max())

    def length(self, vectors: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
        """The length of cells after the rotation; an orthogonal rotation does not change it."""
        moved = vectors if self.form == "orthogonal" else vectors @ self.matrix.T
        return moved.norm(dim=1).clamp(min=FLOOR)


def polar(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The orthogonal matrix nearest to this one, which maximises ``<U, A>`` (Schönemann 1966): ``P Qᵀ`` of its SVD."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def strongest(
    pooled: Float[Tensor, "n d"], rotation: Float[Tensor, "k d"], m: int, sign: int = 1
) -> Int[Tensor, "k m"]:
    """The ``m`` pictures that activate each channel most, strongest first: its prototypes. ``-1`` takes the least.

    ``act(I, k) = Σ_hw (U Z)_k`` is the mean times the number of cells, so the pooled vectors are enough.
    """
    return (sign * pooled @ rotation.T).topk(min(m, len(pooled)), dim=0).indices.T


class Peaks(NamedTuple):
    """Where channels are strongest on one picture: those that have it among their prototypes, and at which rank.

    ``cells`` are indices into the picture's cells, ``vectors`` their features before the rotation.
    """

    picture: int
    channels: Int[Tensor, " p"]
    ranks: Int[Tensor, " p"]
    cells: Int[Tensor, " p"]
    vectors: Float[Tensor, "p d"]


def peaks(maps: Maps, rotation: Float[Tensor, "k d"], of: Int[Tensor, "k m"], sign: int = 1) -> Iterator[Peaks]:
    """For each picture, the cell in which each channel that has it as a prototype is strongest; ``-1``: lowest."""
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
    maps: Maps, rotation: Rotation, of: Int[Tensor, "d m"], sign: int = 1
) -> tuple[Int[Tensor, "d m"], Float[Tensor, "d m"]]:
    """The cell in which each channel is strongest on its prototypes, and how pure the channel is there.

    ``p_k / ‖p‖`` with ``p = U Z[:, h*, w*]``, −1…1; 1: nothing but channel ``k`` is active there.
    """
    cells, pure = torch.zeros_like(of), torch.zeros(of.shape)
    for at in peaks(maps, rotation.matrix, of, sign):
        own = sign * (at.vectors * rotation.matrix[at.channels]).sum(1)
        cells[at.channels, at.ranks] = at.cells
        pure[at.channels, at.ranks] = own / rotation.length(at.vectors)
    return cells, pure


def mean_unit_peaks(
    maps: Maps, rotation: Float[Tensor, "k d"], of: Int[Tensor, "k m"], weights: Float[Tensor, " m"] | None = None
) -> Float[Tensor, "k d"]:
    """Row ``k`` of ``A``: the mean unit feature at the peaks of channel ``k``'s prototypes, weighted by rank."""
    by_rank = torch.full(of.shape[1:], 1 / of.shape[1]) if weights is None else weights
    mean = torch.zeros(rotation.shape)
    for at in peaks(maps, rotation, of):
        unit = at.vectors / at.vectors.norm(dim=1, keepdim=True).clamp(min=FLOOR)
        mean.index_add_(0, at.channels, unit * by_rank[at.ranks][:, None])
    return mean


@dataclass(frozen=True)
class Procrustes:
    """Alternates between prototypes and the best orthogonal ``U`` for them (ours; the paper has Adam).

    With prototypes and their peaks held, the mean purity is ``<U, A> / d``, row ``k`` of ``A`` being the mean unit
    feature at the peaks of channel ``k``'s prototypes. Its maximum over orthogonal matrices is the polar factor of
    ``A``, one SVD a round; shrinkage takes that of ``A + λ 1``. ``A`` is a mean over several numbers of prototypes,
    which on pictures held out is purer than any one number (docs/methods/epic.md).

    Args:
        n_prototypes: pictures a channel.
        scales: multiples of ``n_prototypes`` that are averaged over; with ``(1.0,)`` it is the plain alternation.
        shrinkage: ``λ``; 0 maximises purity on these pictures alone, infinity leaves the channels as they are.
        n_rotated: channels that are rotated, those with the largest mean square activation; ``None`` for all.
        n_rounds: alternations.
    """

    name = "procrustes"

    n_prototypes: Count = 20
    shrinkage: NotNegative = 0.2
    n_rotated: int | None = None
    n_rounds: Count = 4
    scales: tuple[float, ...] = (0.25, 1.0, 2.0)

    def __post_init__(self) -> None:
        check_fields(self)

    def rounds(self, maps: Maps) -> Iterator[Rotation]:
        """Yield the rotation after each round."""
        width = maps.pooled.shape[1]
        moved, matrix = self._moved(maps.pooled), torch.eye(width)
        counts = [max(1, round(scale * self.n_prototypes)) for scale in self.scales]
        for _ in range(self.n_rounds):
            prototypes = strongest(maps.pooled, matrix[moved], max(counts))
            n = prototypes.shape[1]
            # Of the strongest, the second strongest, …: the mean over the numbers of prototypes of one part each.
            weights = torch.stack([(torch.arange(n) < c) / min(c, n) for c in counts]).mean(0)
            wanted = mean_unit_peaks(maps, matrix[moved], prototypes, weights)[:, moved]
            matrix = torch.eye(width)
            matrix[moved[:, None], moved] = polar(wanted + self.shrinkage * torch.eye(len(moved)))
            yield Rotation.orthogonal(matrix)

    def fit(self, maps: Maps) -> Rotation:
        """The rotation after the last round."""
        *_, last = self.rounds(maps)
        return last

    def _moved(self, pooled: Float[Tensor, "n d"]) -> Tensor:
        width = pooled.shape[1]
        if self.n_rotated is None or self.n_rotated >= width:
            return torch.arange(width)
        return pooled.square().mean(0).topk(max(2, self.n_rotated)).indices.sort().values


def folded_logits(
    head: Head, rotation: Rotation, pooled: Float[Tensor, "b d"], cells: Float[Tensor, "b s d"]
) -> Float[Tensor, "b k"]:
    """Logits of the folded head, from the rotated cells: ``A' mean(U Z) + b'`` with ``A' = A U⁻¹``.

    ``A`` are the head's weights on these very pictures, less their mean over classes (:meth:`Head.slope`), and ``b'``
    holds what a picture adds to every cell alike.
    """
    logits, rotated, folded = head(pooled), (cells @ rotation.matrix.T).mean(1), []
    for k in range(logits.shape[1]):
        weight = head.slope(pooled, Target(torch.full((len(pooled),), k)))
        folded.append(logits[:, k] + ((weight @ rotation.inverse) * rotated).sum(1) - (weight * pooled).sum(1))
    return torch.stack(folded, 1)


class FoldCheck(NamedTuple):
    """How close folded logits are: the largest difference divided by the largest logit, and the share of equal
    decisions.
    """

    difference: float
    agreement: float


def check_fold(
    head: Head, rotation: Rotation, pooled: Float[Tensor, "b d"], cells: Float[Tensor, "b s d"]
) -> FoldCheck:
    """Compare folded logits with the model's own, from which only rounding may separate them."""
    with torch.no_grad():
        own, folded = head(pooled), folded_logits(head, rotation, pooled, cells)
    difference = float((own - folded).abs().max() / own.abs().max().clamp(min=1e-12))
    if not difference < TOLERANCE:
        raise ModelError(
            f"The folded head differs from the model by {difference:.1e} of its largest logit. Expected less than "
            f"{TOLERANCE:g}. Use --like nearest, which folds nothing."
        )
    return FoldCheck(difference, float((own.argmax(1) == folded.argmax(1)).float().mean()))
