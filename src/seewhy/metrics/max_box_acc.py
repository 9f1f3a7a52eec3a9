"""MaxBoxAcc (Choe et al. 2020, arXiv 2001.07437)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count
from . import metrics
from .base import Case, Maps, Score, min_max
from .boxes import box_iou, largest_boxes
from .masked_map import Localisation


@metrics.register
@dataclass(frozen=True)
class MaxBoxAcc(Localisation):
    """Part of the pictures whose box is found, at the one threshold that suits the set best; high is good.

    ``max_τ mean_x [IoU(box(m ≥ τ), box(G)) ≥ δ]``, averaged over the ``ious`` δ. One picture's own value takes its own
    best threshold and so is too kind; only the set's number is the published one.

    Args:
        ious: (0.5,) is MaxBoxAcc; (0.3, 0.5, 0.7) are the overlaps of its second version.
        n_thresholds: 0, 1/n, …
    """

    name = "max_box_acc"
    paper = "Choe et al. 2020, arXiv:2001.07437"
    sign = "min-max to 0…1"
    small = {"n_thresholds": 10}

    ious: tuple[float, ...] = (0.5,)
    n_thresholds: Count = 100

    def score(self, case: Case, maps: Maps) -> list[Score]:
        box = largest_boxes(self.mask(case)[None])[0]
        thresholds = torch.arange(self.n_thresholds) / self.n_thresholds
        found = []
        for one in min_max(maps):
            overlap = box_iou(largest_boxes(one >= thresholds[:, None, None]), box)
            hits = torch.stack([(overlap >= d).float() for d in self.ious]).flatten()
            found.append(Score(float(self.combine(hits)), {"best_iou": float(overlap.max())}, tuple(hits.tolist())))
        return found

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        return means.unflatten(-1, (len(self.ious), self.n_thresholds)).amax(-1).mean(-1)
