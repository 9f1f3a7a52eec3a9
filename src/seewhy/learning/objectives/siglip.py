"""SigLIP's objective (Zhai et al. 2023, arXiv 2303.15343): each pair is a question of its own, with a learnt bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import logsigmoid

from ...bounds import Finite
from . import objectives
from .contrastive import Contrastive, Costs, Learnt, Own, Scale, Scores, Sides, Temperature


@objectives.register
@dataclass(frozen=True)
class SigLIP(Contrastive):
    """Every picture beside every text is one question: do they belong together?

    ``s_ij = exp(t) cos(image_i, text_j) + b``; ``loss = -1/n sum_ij log sigmoid(z_ij s_ij)``, where ``z`` is 1 for a
    pair and -1 for all others (equation 1 and algorithm 1). ``t`` and ``b`` are learnt; ``exp(t)`` is held between 1
    and ``max_scale``, as open_clip does, where the paper has no bound.

    Equal to ``open_clip.loss.SigLipLoss`` in loss and gradients, also over several processes.

    Args:
        scale: of the cosines at first; the paper's 10.
        bias: at first; the paper's -10, so that the many wrong pairs cost little at the start.
        max_scale: of ``exp(t)``.

    Example:
        >>> round(float(SigLIP(scale=1.0, bias=0.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1)) + log 2
        1.0064
    """

    name: ClassVar[str] = "siglip"
    paper: ClassVar[str] = "Zhai et al. 2023, arXiv:2303.15343"

    scale: Scale = 10.0
    bias: Finite = -10.0
    max_scale: Scale = 100.0

    def check(self) -> None:
        if self.scale > self.max_scale:
            raise self.refusal("scale", "max_scale", expected="A scale up to the largest was")

    def state(self) -> Temperature:
        return Learnt(self.scale, self.max_scale, self.bias)

    def weights(self) -> tuple[float, float]:
        return 1.0, 0.0

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        together = torch.full_like(scores, -1.0).scatter(1, own[:, None], 1.0)
        return -logsigmoid(together * scores).sum(1)
