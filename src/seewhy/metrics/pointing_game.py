"""Pointing game (Zhang et al. 2016, Excitation Backprop, arXiv 1608.00507)."""

from dataclasses import dataclass

from torch.nn.functional import max_pool2d

from ..bounds import Natural
from . import metrics
from .base import Case, Maps, Score
from .masked_map import MaskedMap, beside_size


@metrics.register
@dataclass(frozen=True)
class PointingGame(MaskedMap):
    """Whether the hottest pixel lies on the object; high is good.

    With several hottest pixels it is the share of them on the object, which is what breaking ties at random gives.

    Args:
        tolerance: pixels by which the object is widened on every side; the authors' code uses 15.
    """

    name = "pointing_game"
    paper = "Zhang et al. 2016, arXiv:1608.00507"
    sign = "as it is"

    tolerance: Natural = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        mask = self.mask(case)
        wide = mask.float()[None, None]
        if self.tolerance:
            wide = max_pool2d(wide, 2 * self.tolerance + 1, 1, self.tolerance)
        hottest = maps == maps.amax((1, 2), keepdim=True)
        return beside_size((hottest * wide[0]).sum((1, 2)) / hottest.sum((1, 2)), mask)
