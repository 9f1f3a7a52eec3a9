"""GIST's objective (Lewis et al. 2023, arXiv 2307.11315): CLIP's symmetric cross entropy over a batch of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ...bounds import Positive
from . import objectives
from .contrastive import Contrastive, Costs, Fixed, Own, Scores, Sides, Temperature

SameClass = Literal["negative", "masked", "positive"]


@objectives.register
@dataclass(frozen=True)
class GIST(Contrastive):
    """Each picture must find its own text among those of the batch, and each text its own picture.

    ``s_ij = scale cos(image_i, text_j)``; ``loss = (mean_i CE(s_i·, target_i) + mean_j CE(s_·j, target_j)) / 2``.
    In the authors' form the target of ``i`` is ``i`` alone, so another picture of the same class, and the same picture
    with another of its captions, count as wrong. Two other forms do not have that: ``"masked"`` leaves pairs of one
    class out of the comparison, ``"positive"`` makes all of them right, with equal parts (UniCL, arXiv 2204.03610).

    Differences: the scale stays as it is (CLIP learns it; at the authors' rate of 1e-6 it hardly moves).

    Args:
        scale: of the cosines; CLIP's 100.
        same_class: what pairs of one class but different samples are; ``"negative"`` is the authors'.

    Example:
        >>> pairs = torch.eye(2)
        >>> round(float(GIST(scale=1.0)(pairs, pairs)), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "gist"
    paper: ClassVar[str] = "Lewis et al. 2023, arXiv:2307.11315"

    scale: Positive = 100.0
    same_class: SameClass = "negative"

    def state(self) -> Temperature:
        return Fixed(self.scale)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        mine = own[:, None] == torch.arange(scores.shape[1], device=scores.device)
        target = mine.to(scores)
        if self.same_class != "negative":
            alike = self.alike_pairs(labels, "The class of each pair was", "same_class='negative'")
            if self.same_class == "positive":
                target = alike.to(scores) / alike.sum(1, keepdim=True)
            else:
                scores = scores.masked_fill(alike & ~mine, float("-inf"))
        # A place without target adds nothing, be its score minus infinity.
        return -torch.where(target > 0, target * scores.log_softmax(1), 0.0).sum(1)
