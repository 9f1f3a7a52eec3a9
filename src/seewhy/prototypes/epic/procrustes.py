"""EPIC's purity maximised in closed form: orthogonal Procrustes, one SVD a round (ours; the paper has Adam)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import InputError
from .purity import Maps, mean_unit_peaks, strongest
from .rotation import Rotation, polar


@dataclass(frozen=True)
class Procrustes:
    """Alternates between prototypes and the best orthogonal ``U`` for them.

    With prototypes and their peaks held, the mean purity is ``<U, A> / d``, row ``k`` of ``A`` being the mean unit
    feature at the peaks of channel ``k``'s prototypes. Its maximum over orthogonal matrices is the polar factor of
    ``A``. Shrinkage takes that of ``A + λ 1``: what a few pictures say about a channel moves it less.

    ``A`` is the mean of several such matrices, for fewer and for more prototypes: the few that will be shown weigh
    most, and the many keep a channel from following single pictures. On pictures held out that is purer than any one
    number of prototypes (docs/methods/epic.md).

    Args:
        n_prototypes: pictures a channel.
        scales: multiples of ``n_prototypes`` that are averaged over; with ``(1.0,)`` it is the plain alternation.
        shrinkage: ``λ``; 0 maximises purity on these pictures alone, infinity leaves the channels as they are.
        n_rotated: channels that are rotated, those with the largest mean square activation; ``None`` for all.
        n_rounds: alternations.
    """

    n_prototypes: int = 20
    shrinkage: float = 0.2
    n_rotated: int | None = None
    n_rounds: int = 4
    scales: tuple[float, ...] = (0.25, 1.0, 2.0)

    def __post_init__(self) -> None:
        if self.n_prototypes < 1 or self.n_rounds < 1 or self.shrinkage < 0:
            raise InputError(
                f"Procrustes was given {self.n_prototypes} prototypes, {self.n_rounds} rounds and a shrinkage of "
                f"{self.shrinkage}. At least 1, 1 and 0 were expected. Correct them."
            )

    def rounds(self, maps: Maps) -> Iterator[Rotation]:
        """The rotation after each round."""
        width = maps.pooled.shape[1]
        moved = self._moved(maps.pooled)
        matrix = torch.eye(width)
        for _ in range(self.n_rounds):
            prototypes = strongest(maps.pooled, matrix[moved], max(self._counts))
            weights = self._weights(prototypes.shape[1])
            wanted = mean_unit_peaks(maps, matrix[moved], prototypes, weights)[:, moved]
            fresh = torch.eye(width)
            fresh[moved[:, None], moved] = polar(wanted + self.shrinkage * torch.eye(len(moved)))
            matrix = fresh
            yield Rotation.orthogonal(matrix)

    def fit(self, maps: Maps) -> Rotation:
        """The rotation after the last round."""
        *_, last = self.rounds(maps)
        return last

    @property
    def _counts(self) -> list[int]:
        return [max(1, round(scale * self.n_prototypes)) for scale in self.scales]

    def _weights(self, n: int) -> Float[Tensor, " n"]:
        """Of the strongest, the second strongest, …: the mean over the numbers of prototypes of one part each."""
        return torch.stack([(torch.arange(n) < c) / min(c, n) for c in self._counts]).mean(0)

    def _moved(self, pooled: Float[Tensor, "n d"]) -> Tensor:
        width = pooled.shape[1]
        if self.n_rotated is None or self.n_rotated >= width:
            return torch.arange(width)
        return pooled.square().mean(0).topk(max(2, self.n_rotated)).indices.sort().values
