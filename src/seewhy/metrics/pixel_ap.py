"""Pixel average precision (PxAP, Choe et al. 2020, arXiv 2001.07437)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import Case, Metric, Score, min_max
from .masked_map import object_mask


@metrics.register
@dataclass(frozen=True)
class PixelAP(Metric):
    """Average precision of finding the object's pixels by the map, pixels of all pictures pooled; high is good.

    ``AP = Σ_τ precision(τ) · (recall(τ) - recall(τ + 1/n))`` over thresholds on maps scaled to 0…1.

    Args:
        n_thresholds: the paper's code takes 1000; 100 differ from it by less than 0.01.
    """

    name: ClassVar[str] = "pixel_ap"
    paper: ClassVar[str] = "Choe et al. 2020, arXiv:2001.07437"
    family: ClassVar[str] = "localisation"
    needs: ClassVar[str] = "a map and the object's mask"
    cost: ClassVar[str] = "0"
    higher_is_better: ClassVar[bool] = True
    reads: ClassVar[str] = "map"
    sign: ClassVar[str] = "min-max to 0…1"
    requires: ClassVar[tuple[str, ...]] = ("mask",)

    n_thresholds: int = 100

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        mask = object_mask(case, self.name).flatten()
        n = self.n_thresholds
        places = (min_max(maps).flatten(1) * n).floor().long().clamp(0, n - 1)
        found = []
        for place in places:
            histograms = torch.cat([torch.bincount(place[part], minlength=n) for part in (mask, ~mask)]).double()
            value = float(self.combine(histograms / len(mask)))
            share = round(float(mask.float().mean()), 6)
            found.append(Score(value, {"mask_share": share}, tuple((histograms / len(mask)).tolist())))
        return found

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        """The two histograms, hottest first, added up to true and false positives."""
        on, off = means.flip(-1).chunk(2, -1)[::-1]
        true, false = on.cumsum(-1), off.cumsum(-1)
        precision = true / (true + false).clamp(min=1e-12)
        recall = on / on.sum(-1, keepdim=True).clamp(min=1e-12)
        return (precision * recall).sum(-1)
