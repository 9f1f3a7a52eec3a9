"""DITO's training (Kim et al. 2023, arXiv 2310.00161): a detector's heads learn from whole pictures' texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.nn.functional import cross_entropy

from ...bounds import Count, NotNegative, SomePart
from . import objectives
from .contrastive import Costs, LearntScale, Own, RandomBoxes, Scores, Sides, focal_costs


@objectives.register
@dataclass(frozen=True)
class DITO(LearntScale, RandomBoxes):
    """What a detector's heads see in random boxes must find the picture's text, on every level of their pyramid.

    ``v_l = max_r head(box_r on level l)``, the largest of each number over random boxes ``r``; the loss is
    ``L(whole pictures, texts) + level_weight mean_l L(v_l, texts)``, ``L`` CLIP's symmetric cross entropy over the
    batch, or RO-ViT's focal loss, at one temperature that is learnt.

    The authors published the detector and not this training, and this is written from abstracts: how many boxes are
    drawn, how, and how the terms are weighed, is ours. The heads are saved with the encoder, for
    ``seewhy fit --task boxes --method dito``. Cost: no pass; ``3 n_boxes`` small heads a picture.

    Args:
        loss: ``"softmax"`` or ``"focal"`` (alpha 0.5, gamma 1).
        n_boxes: drawn of each picture.
        smallest: side of a box, as a part of the picture's.
        level_weight: of the levels beside the whole.

    Example:
        >>> import torch
        >>> round(float(DITO(temperature=1.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "dito"
    spelt: ClassVar[str] = "DITO"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2310.00161"

    loss: Literal["softmax", "focal"] = "softmax"
    n_boxes: Count = 6
    smallest: SomePart = 0.2
    level_weight: NotNegative = 1.0

    def weights(self) -> tuple[float, float]:
        return (0.5, 0.5) if self.loss == "softmax" else (1.0, 0.0)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        if self.loss == "softmax":
            return cross_entropy(scores, own, reduction="none")
        return focal_costs(scores, own, 0.5, 1.0)
