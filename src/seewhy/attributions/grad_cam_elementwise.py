"""Grad-CAM, elementwise (Pillai & Pirsiavash 2021, AAAI)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from . import attributions
from .cam import WeightedCAM


@attributions.register
@dataclass(frozen=True)
class GradCAMElementwise(WeightedCAM):
    """Multiplies each activation by its own gradient and sums what is positive.

    ``L_ij = Σ_k ReLU(∂y/∂A_k,ij A_k,ij)``, as in pytorch-grad-cam. The map is never negative: a cell cannot speak
    against the target, and channels that speak against each other in a cell do not cancel.

    Cost: none beside the pass that predicts; with ``layer``, one forward pass and the backward pass behind it.
    """

    name: ClassVar[str] = "grad_cam_elementwise"
    spelt: ClassVar[str] = "element-wise Grad-CAM"
    paper: ClassVar[str] = "Pillai & Pirsiavash 2021, AAAI (Explainable models with consistent interpretations)"

    def weights(
        self, activations: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c gh gw"]
    ) -> Float[Tensor, "b c wh ww"]:
        return torch.where(gradient * activations <= 0, 0.0, gradient)
