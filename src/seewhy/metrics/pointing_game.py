"""Pointing game (Zhang et al. 2016, Excitation Backprop, arXiv 1608.00507)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from . import metrics
from .base import Case, Score
from .masked_map import MaskedMap


@metrics.register
@dataclass(frozen=True)
class PointingGame(MaskedMap):
    """Whether the hottest pixel lies on the object; high is good.

    With several hottest pixels it is the share of them on the object, which is what breaking ties at random gives.

    Args:
        tolerance: pixels by which the object is widened on every side; the authors' code uses 15.
    """

    name: ClassVar[str] = "pointing_game"
    paper: ClassVar[str] = "Zhang et al. 2016, arXiv:1608.00507"
    sign: ClassVar[str] = "as it is"

    tolerance: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        mask = self.mask(case)
        wide = mask.float()[None, None]
        if self.tolerance:
            wide = max_pool2d(wide, 2 * self.tolerance + 1, 1, self.tolerance)
        hottest = maps == maps.amax((1, 2), keepdim=True)
        hits = (hottest * wide[0]).sum((1, 2)) / hottest.sum((1, 2))
        return self.beside_size(hits, mask)
