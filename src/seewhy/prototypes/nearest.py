"""Nearest patches: the plainest *this looks like that*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import prototypes
from .bank import PatchBank, patch_vector
from .base import Match, Prototypes


@prototypes.register
@dataclass(frozen=True)
class NearestPatches(Prototypes):
    """For each region of a picture, the nearest patches of other pictures, of whatever class.

    Nearness is the cosine of the features around the cells (:func:`seewhy.prototypes.bank.patch_vector`).

    Args:
        n_neighbours: patches a region.
        duplicate: pooled cosine at which two pictures count as one; a near-duplicate of the query, or of a
            picture already shown, is passed over.
    """

    name: ClassVar[str] = "nearest"
    paper: ClassVar[str] = "Nearest neighbours in feature space"
    needs: ClassVar[str] = "a classifier fitted on pictures"
    cost: ClassVar[str] = "0"

    n_neighbours: int = 4
    duplicate: float = 0.98

    def __call__(
        self,
        bank: PatchBank,
        grid: Float[Tensor, "c h w"],
        pooled: Float[Tensor, " d"],
        cells: Sequence[tuple[int, int]],
        digest: str = "",
    ) -> list[list[Match]]:
        mine = pooled / pooled.norm().clamp(min=1e-12)
        close = (bank.pooled @ mine >= self.duplicate).tolist()
        banned = {i for i, p in enumerate(bank.pictures) if close[i] or p.digest == digest}
        return [self._search(bank, patch_vector(grid, cell), banned) for cell in cells]

    def _search(self, bank: PatchBank, vector: Float[Tensor, " c"], banned: set[int]) -> list[Match]:
        similarity = bank.vectors @ vector
        shown: list[int] = []
        found: list[Match] = []
        for patch in similarity.argsort(descending=True, stable=True).tolist():
            if len(found) == self.n_neighbours:
                break
            picture = int(bank.owner[patch])
            if picture in banned or picture in shown or self._repeats(bank, picture, shown):
                continue
            shown.append(picture)
            found.append(Match(patch, float(similarity[patch])))
        return found

    def _repeats(self, bank: PatchBank, picture: int, shown: Sequence[int]) -> bool:
        return bool(shown) and bool((bank.pooled[list(shown)] @ bank.pooled[picture] >= self.duplicate).any())
