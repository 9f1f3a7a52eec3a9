"""DITO (Kim et al. 2023, arXiv 2310.00161): a detector's heads learn from pictures with texts, before any box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...errors import InputError
from . import objectives
from .contrastive import Learnt, Temperature, focal_costs
from .random_boxes import RandomBoxes

Loss = Literal["softmax", "focal"]


@objectives.register
@dataclass(frozen=True)
class DITO(RandomBoxes):
    """What a detector's heads see in random boxes must find the picture's text, on every level of their pyramid.

    ``v_l = max_r head(box_r on level l)``, the largest of each number over random boxes ``r``; the loss is
    ``L(whole pictures, texts) + level_weight mean_l L(v_l, texts)``, ``L`` CLIP's symmetric cross entropy over the
    batch, or RO-ViT's focal loss, at one temperature that is learnt.

    The authors published the detector and not this training, and this is written from abstracts: how many boxes are
    drawn, how, and how the terms are weighed, is ours. The heads are saved with the encoder, for
    ``seewhy fit-detector --method dito``. Cost: no pass; ``3 n_boxes`` small heads a picture.

    Args:
        temperature: at first, ``exp(-theta)``; CLIP's 0.07.
        loss: ``"softmax"`` or ``"focal"`` (alpha 0.5, gamma 1).
        n_boxes: drawn of each picture.
        smallest: side of a box, as a part of the picture's.
        level_weight: of the levels beside the whole.
        max_scale: of ``exp(theta)``; CLIP's 100.

    Example:
        >>> import torch
        >>> round(float(DITO(temperature=1.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "dito"
    spelt: ClassVar[str] = "DITO"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2310.00161"
    needs: ClassVar[str] = "pictures with a text each"

    temperature: float = 0.07
    loss: Loss = "softmax"
    n_boxes: int = 6
    smallest: float = 0.2
    level_weight: float = 1.0
    max_scale: float = 100.0

    def __post_init__(self) -> None:
        fits = Learnt.takes(self.temperature, self.max_scale) and self.loss in get_args(Loss)
        if not fits or self.n_boxes < 1 or not 0 < self.smallest <= 1 or self.level_weight < 0:
            raise InputError(
                f"The objective dito was given temperature={self.temperature:g}, loss={self.loss!r}, "
                f"n_boxes={self.n_boxes}, smallest={self.smallest:g}, level_weight={self.level_weight:g}, "
                f"max_scale={self.max_scale:g}. A scale from 1, a temperature between its inverse and 1, 'softmax' or "
                "'focal', a box or more with sides above 0 and up to 1, and a weight from 0 on were expected. Change "
                "them."
            )

    def state(self) -> Temperature:
        return Learnt(1 / self.temperature, self.max_scale)

    def weights(self) -> tuple[float, float]:
        return (0.5, 0.5) if self.loss == "softmax" else (1.0, 0.0)

    def rows(
        self, scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], labels: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, " a"]:
        if self.loss == "softmax":
            return cross_entropy(scores, own, reduction="none")
        return focal_costs(scores, own, 0.5, 1.0)
