"""Grad-CAM++ (Chattopadhay et al. 2018, arXiv 1710.11063)."""

from dataclasses import dataclass

import torch

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class GradCAMPlusPlus(WeightedCAM):
    """Class activation map with channels weighted by their positive gradients; large activations reduce the weight.

        L = Σ_k w_k A_k,    w_k = Σ_ij a_ij ReLU(g_ij)        (paper, equation 7)
        a_ij = g_ij² / (2 g_ij² + Σ_ab A_k,ab g_ij³ + ε)        (paper, equation 19)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``y`` the target's logit, ``ij`` a position, and ``g``
    the gradient ``∂y/∂A_k``. Positions at which the denominator of ``a_ij`` is 0 or negative are ignored.

    Args:
        layer: dotted name of an inner layer; default: the encoder's last map.
        epsilon: ``ε`` (paper: 0; pytorch-grad-cam: 1e-6, which changes the map where gradients are below 7e-4).
    """

    name = "grad_cam_plus_plus"
    spelt = "Grad-CAM++"
    paper = "Chattopadhay et al. 2018, arXiv:1710.11063"

    epsilon: float = 0.0

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        slope = gradient.expand_as(activations)
        # Numerator and denominator by g²: gradients of 1e-20 squared would vanish in float32.
        denominator = 2 + activations.sum((2, 3), keepdim=True) * slope + self.epsilon / slope.square()
        share = torch.where((slope > 0) & (denominator > 0), 1 / denominator, 0.0)
        return (share * slope.relu()).sum((2, 3), keepdim=True)
