"""Deletion (Petsiuk et al. 2018, RISE, arXiv 1806.07421)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import Metric


@metrics.register
@dataclass(frozen=True)
class Deletion(Metric):
    """Area under the target's probability as the hottest pixels are replaced by the mean colour; low is good.

    The mean colour is 0 in the network's normalised space, as in the authors' code.
    """

    name: ClassVar[str] = "deletion"
    paper: ClassVar[str] = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better: ClassVar[bool] = False

    def ends(self, pixels: Float[Tensor, "3 h w"]) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        return pixels, torch.zeros_like(pixels)
