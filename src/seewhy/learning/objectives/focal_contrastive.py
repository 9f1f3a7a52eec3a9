"""RO-ViT's focal contrastive loss (Kim et al. 2023, arXiv 2305.07011), which DITO takes over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError
from . import objectives
from .contrastive import Contrastive, Learnt, Temperature, focal_costs


@objectives.register
@dataclass(frozen=True)
class FocalContrastive(Contrastive):
    """Each picture beside each text is one question, and hard ones count most: rare things are learnt from few pairs.

    ``loss = 2/n sum_ij w_ij (1 - p_ij)^gamma (-log p_ij)`` with ``p_ij = sigmoid(s_ij)`` for a pair, ``sigmoid(-s_ij)``
    for all others, ``s_ij = exp(theta) cos(image_i, text_j)``, ``w`` ``alpha`` and ``1 - alpha``. ``theta`` is learnt,
    and held between 0 and ``ln(max_scale)``.

    Equal to the authors' ``compute_focal_contrastive_loss`` divided by the batch. Both directions are the same, so one
    is computed. There is no bias, unlike SigLIP's.

    Args:
        temperature: at first, ``exp(-theta)``; CLIP's 0.07.
        alpha: weight of pairs; the authors' 0.5.
        gamma: how little counts what is answered well; the authors' 1. At 0, SigLIP's without its bias.
        max_scale: of ``exp(theta)``; CLIP's 100.

    Example:
        >>> import torch
        >>> round(float(FocalContrastive(temperature=1.0, gamma=0.0)(torch.eye(2), torch.eye(2))), 4)
        1.0064
    """

    name: ClassVar[str] = "focal_contrastive"
    spelt: ClassVar[str] = "focal contrastive"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2305.07011"
    needs: ClassVar[str] = "pictures with a text each"

    temperature: float = 0.07
    alpha: float = 0.5
    gamma: float = 1.0
    max_scale: float = 100.0

    def __post_init__(self) -> None:
        fits = Learnt.takes(self.temperature, self.max_scale) and 0 <= self.alpha <= 1
        if not fits or not 0 <= self.gamma < float("inf"):
            raise InputError(
                f"The objective focal_contrastive was given temperature={self.temperature:g}, alpha={self.alpha:g}, "
                f"gamma={self.gamma:g}, max_scale={self.max_scale:g}. A scale from 1, a temperature between its "
                "inverse and 1, an alpha from 0 to 1 and a gamma from 0 on were expected. Change them."
            )

    def state(self) -> Temperature:
        return Learnt(1 / self.temperature, self.max_scale)

    def weights(self) -> tuple[float, float]:
        return 1.0, 0.0

    def rows(
        self, scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], labels: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, " a"]:
        return focal_costs(scores, own, self.alpha, self.gamma)
