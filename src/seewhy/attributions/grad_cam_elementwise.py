"""Grad-CAM, elementwise (Pillai & Pirsiavash 2021, AAAI)."""

from dataclasses import dataclass

import torch

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class GradCAMElementwise(WeightedCAM):
    """Positive products of activations and their gradients, summed over channels, as in pytorch-grad-cam.

        L_ij = Σ_k ReLU(∂y/∂A_k,ij A_k,ij)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``y`` the target's logit, and ``ij`` a position. All
    values are 0 or greater.
    """

    name = "grad_cam_elementwise"
    spelt = "element-wise Grad-CAM"
    paper = "Pillai & Pirsiavash 2021, AAAI (Explainable models with consistent interpretations)"

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return torch.where(gradient * activations <= 0, 0.0, gradient)
