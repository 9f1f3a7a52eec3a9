"""Insertion (Petsiuk et al. 2018, RISE, arXiv 1806.07421)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from . import metrics
from .base import Metric


@metrics.register
@dataclass(frozen=True)
class Insertion(Metric):
    """Area under the target's probability as the hottest pixels return to a blurred picture; high is good.

    Gaussian blur with an 11 px kernel and σ = 5 px, as in the authors' code.
    """

    name: ClassVar[str] = "insertion"
    paper: ClassVar[str] = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better: ClassVar[bool] = True

    def ends(self, pixels: Float[Tensor, "3 h w"]) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        return blurred(pixels), pixels


def blurred(pixels: Float[Tensor, "3 h w"], kernel: int = 11, sigma: float = 5.0) -> Float[Tensor, "3 h w"]:
    """Gaussian blur, separable, borders reflected."""
    offsets = torch.arange(kernel) - kernel // 2
    weights = (-0.5 * (offsets / sigma) ** 2).exp()
    weights = weights / weights.sum()
    half = kernel // 2
    padded = pad(pixels[:, None], (half, half, half, half), mode="reflect")
    return conv2d(conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]
