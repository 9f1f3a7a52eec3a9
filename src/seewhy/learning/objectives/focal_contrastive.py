"""RO-ViT's focal contrastive loss (Kim et al. 2023, arXiv 2305.07011), which DITO takes over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...bounds import NotNegative, Part
from . import objectives
from .contrastive import Costs, LearntScale, Own, Scores, Sides, focal_costs


@objectives.register
@dataclass(frozen=True)
class FocalContrastive(LearntScale):
    """Each picture beside each text is one question, and hard ones count most: rare things are learnt from few pairs.

    ``loss = 2/n sum_ij w_ij (1 - p_ij)^gamma (-log p_ij)`` with ``p_ij = sigmoid(s_ij)`` for a pair, ``sigmoid(-s_ij)``
    for all others, ``s_ij = exp(theta) cos(image_i, text_j)``, ``w`` ``alpha`` and ``1 - alpha``. ``theta`` is learnt,
    and held between 0 and ``ln(max_scale)``.

    Equal to the authors' ``compute_focal_contrastive_loss`` divided by the batch. Both directions are the same, so one
    is computed. There is no bias, unlike SigLIP's.

    Args:
        alpha: weight of pairs; the authors' 0.5.
        gamma: how little counts what is answered well; the authors' 1. At 0, SigLIP's without its bias.

    Example:
        >>> import torch
        >>> round(float(FocalContrastive(temperature=1.0, gamma=0.0)(torch.eye(2), torch.eye(2))), 4)
        1.0064
    """

    name: ClassVar[str] = "focal_contrastive"
    spelt: ClassVar[str] = "focal contrastive"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2305.07011"

    alpha: Part = 0.5
    gamma: NotNegative = 1.0

    def weights(self) -> tuple[float, float]:
        return 1.0, 0.0

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        return focal_costs(scores, own, self.alpha, self.gamma)
