"""Energy-based pointing game (Wang et al. 2020, Score-CAM, arXiv 1910.01279)."""

from dataclasses import dataclass

from . import metrics
from .base import Case, Maps, Score
from .masked_map import MaskedMap, beside_size, positive_share


@metrics.register
@dataclass(frozen=True)
class EnergyPointingGame(MaskedMap):
    """Part of the positive evidence that lies on the object; high is good.

    ``Σ_{i in G} max(R_i, 0) / Σ_i max(R_i, 0)``. A map without positive evidence gets 0.
    """

    name = "energy_pointing_game"
    paper = "Wang et al. 2020, arXiv:1910.01279"

    def score(self, case: Case, maps: Maps) -> list[Score]:
        mask = self.mask(case)
        return beside_size(positive_share(maps, mask), mask)
