"""Localisation by intersection over union (Selvaraju et al. 2017, Grad-CAM, arXiv 1610.02391)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import Case, Score
from .boxes import box_iou, largest_boxes
from .masked_map import MaskedMap


@metrics.register
@dataclass(frozen=True)
class IoULocalisation(MaskedMap):
    """Whether the box of the map's largest hot piece overlaps the object's box enough; high is good.

    Hot is what exceeds ``threshold`` × the map's maximum. ``parts["iou"]`` is the overlap itself.

    Args:
        threshold: 0.15, as in the paper.
        iou: overlap that counts as a hit, 0.5 as in ILSVRC.
    """

    name: ClassVar[str] = "iou_localisation"
    paper: ClassVar[str] = "Selvaraju et al. 2017, arXiv:1610.02391"

    threshold: float = 0.15
    iou: float = 0.5

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        box = largest_boxes(self.mask(case)[None])[0]
        positive = maps.clamp(min=0)
        overlap = box_iou(largest_boxes(positive > self.threshold * positive.amax((1, 2), keepdim=True)), box)
        hits = (overlap >= self.iou).float()
        return [Score(float(h), {"iou": float(o)}, (float(h),)) for h, o in zip(hits, overlap, strict=True)]
