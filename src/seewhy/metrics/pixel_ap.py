"""Pixel average precision (PxAP, Choe et al. 2020, arXiv 2001.07437)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count
from . import metrics
from .base import Case, Maps, Score, min_max
from .masked_map import Localisation, mask_share


@metrics.register
@dataclass(frozen=True)
class PixelAP(Localisation):
    """Average precision of finding the object's pixels by the map, pixels of all pictures pooled; high is good.

    ``AP = Σ_τ precision(τ) · (recall(τ) - recall(τ + 1/n))`` over thresholds on maps scaled to 0…1.

    Args:
        n_thresholds: the paper's code takes 1000; 100 differ from it by less than 0.01.
    """

    name = "pixel_ap"
    paper = "Choe et al. 2020, arXiv:2001.07437"
    sign = "min-max to 0…1"

    n_thresholds: Count = 100

    def score(self, case: Case, maps: Maps) -> list[Score]:
        n, share, mask = self.n_thresholds, mask_share(self.mask(case)), self.mask(case).flatten()
        found = []
        for place in (min_max(maps).flatten(1) * n).floor().long().clamp(0, n - 1):
            counts = torch.cat([torch.bincount(place[part], minlength=n) for part in (mask, ~mask)]).double()
            sums = counts / len(mask)
            found.append(Score(float(self.combine(sums)), {"mask_share": share}, tuple(sums.tolist())))
        return found

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        """The two histograms, hottest first, added up to true and false positives."""
        on, off = means.flip(-1).chunk(2, -1)[::-1]
        true, false = on.cumsum(-1), off.cumsum(-1)
        precision = true / (true + false).clamp(min=1e-12)
        recall = on / on.sum(-1, keepdim=True).clamp(min=1e-12)
        return (precision * recall).sum(-1)
