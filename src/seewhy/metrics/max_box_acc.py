"""MaxBoxAcc (Choe et al. 2020, arXiv 2001.07437)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import Case, Metric, Score, min_max
from .boxes import box_iou, largest_boxes
from .masked_map import object_mask


@metrics.register
@dataclass(frozen=True)
class MaxBoxAcc(Metric):
    """Part of the pictures whose box is found, at the one threshold that suits the set best; high is good.

    ``max_τ mean_x [IoU(box(m ≥ τ), box(G)) ≥ δ]``, averaged over the ``ious`` δ. One picture's own value takes its own
    best threshold and so is too kind; only the set's number is the published one.

    Args:
        ious: (0.5,) is MaxBoxAcc; (0.3, 0.5, 0.7) are the overlaps of its second version.
        n_thresholds: 0, 1/n, …
    """

    name: ClassVar[str] = "max_box_acc"
    paper: ClassVar[str] = "Choe et al. 2020, arXiv:2001.07437"
    family: ClassVar[str] = "localisation"
    needs: ClassVar[str] = "a map and the object's mask"
    cost: ClassVar[str] = "0"
    higher_is_better: ClassVar[bool] = True
    reads: ClassVar[str] = "map"
    sign: ClassVar[str] = "min-max to 0…1"
    requires: ClassVar[tuple[str, ...]] = ("mask",)
    small: ClassVar = {"n_thresholds": 10}

    ious: tuple[float, ...] = (0.5,)
    n_thresholds: int = 100

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        box = largest_boxes(object_mask(case, self.name)[None])[0]
        thresholds = torch.arange(self.n_thresholds) / self.n_thresholds
        found = []
        for one in min_max(maps):
            overlap = box_iou(largest_boxes(one >= thresholds[:, None, None]), box)
            hits = torch.stack([(overlap >= d).float() for d in self.ious])
            value = float(self.combine(hits.flatten()))
            found.append(Score(value, {"best_iou": float(overlap.max())}, tuple(hits.flatten().tolist())))
        return found

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        return means.unflatten(-1, (len(self.ious), self.n_thresholds)).amax(-1).mean(-1)
