"""Localisation by intersection over union (Selvaraju et al. 2017, Grad-CAM, arXiv 1610.02391)."""

from dataclasses import dataclass

from ..bounds import Part
from . import metrics
from .base import Case, Maps, Score, scores
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

    name = "iou_localisation"
    paper = "Selvaraju et al. 2017, arXiv:1610.02391"

    threshold: Part = 0.15
    iou: Part = 0.5

    def score(self, case: Case, maps: Maps) -> list[Score]:
        box = largest_boxes(self.mask(case)[None])[0]
        positive = maps.clamp(min=0)
        overlap = box_iou(largest_boxes(positive > self.threshold * positive.amax((1, 2), keepdim=True)), box)
        return scores((overlap >= self.iou).float(), iou=overlap)
