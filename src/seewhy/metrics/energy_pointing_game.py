"""Energy-based pointing game (Wang et al. 2020, Score-CAM, arXiv 1910.01279)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import Case, Score
from .masked_map import MaskedMap, positive_share


@metrics.register
@dataclass(frozen=True)
class EnergyPointingGame(MaskedMap):
    """Part of the positive evidence that lies on the object; high is good.

    ``Σ_{i in G} max(R_i, 0) / Σ_i max(R_i, 0)``. A map without positive evidence gets 0.
    """

    name: ClassVar[str] = "energy_pointing_game"
    paper: ClassVar[str] = "Wang et al. 2020, arXiv:1910.01279"

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        mask = self.mask(case)
        return self.beside_size(positive_share(maps, mask), mask)
