"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.head import Target
from ..encoders.base import Look
from . import attributions
from .base import Attribution, Explainable, feature_gradient


@attributions.register
@dataclass(frozen=True)
class GradCAM(Attribution):
    """Weighs each channel by the mean gradient of the target and sums the channels.

    ``α_k = mean_ij ∂y/∂A_k,ij`` and ``L = Σ_k α_k A_k`` (paper, equations 1 and 2), with ``y`` the logit. Behind
    a mean-pooled head the gradient is the same in every cell, and the map is one matrix product. The ReLU of
    equation 2 is left to the display, so that what speaks against the class is not lost.

    Cost: no forward pass beside the one that predicts; a backward pass through the head alone.
    """

    name: ClassVar[str] = "grad_cam"
    paper: ClassVar[str] = "Selvaraju et al. 2017, arXiv:1610.02391"
    needs: ClassVar[str] = "a spatial last layer (any CNN or transformer)"
    cost: ClassVar[str] = "0"

    def attribute(self, model: Explainable, look: Look, target: Target) -> Float[Tensor, "b h w"]:
        weights = feature_gradient(model, look, target).mean((2, 3))
        return torch.einsum("bc,bchw->bhw", weights, model.encoder.layout.to_grid(look.features))
