"""Guided Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ..encoders.base import EncoderOutput
from ..heads.head import TargetFunction
from . import attributions
from .base import Attribution, Explainable
from .grad_cam import GradCAM
from .guided_backprop import GuidedBackprop
from .inner_layer import CHUNK


@attributions.register
@dataclass(frozen=True)
class GuidedGradCAM(Attribution):
    """Multiplies the Grad-CAM map with the size of the guided gradient at each pixel: fine, and of one class.

    ``L = up(L_GradCAM) · Σ_rgb |guided ∂y/∂x|``. The paper multiplies colour by colour with the positive part of
    Grad-CAM; here colours are added up by absolute value, since a gradient's sign at a colour says which way to change
    it and not whether it speaks for the class, and Grad-CAM keeps its sign, which then is the map's.

    Gradients are guided at ReLU, and in the same manner at ReLU6, SiLU and GELU, as module or as function. On a network
    with none of these the rule has nothing to act on, and the gradient is the plain one. The gradient is taken on the
    plain torch trunk, whatever the engine. Guided gradients resemble edges whatever the weights (Adebayo et al. 2018,
    arXiv 1810.03292): what is of the class here is of Grad-CAM.

    Cost: one forward and one backward pass in eager torch.

    Args:
        layer: an inner layer for the Grad-CAM factor.
    """

    name: ClassVar[str] = "guided_grad_cam"
    spelt: ClassVar[str] = "Guided Grad-CAM"
    paper: ClassVar[str] = "Selvaraju et al. 2017, arXiv:1610.02391"
    needs: ClassVar[str] = "a trunk in torch with ReLU, ReLU6, SiLU or GELU, and the pixels"
    cost: ClassVar[str] = "1 and a backward pass"
    needs_pixels: ClassVar[bool] = True

    layer: str | None = None

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        assert look.pixels is not None
        coarse = GradCAM(layer=self.layer).attribute(model, look, target)
        fine = guided_gradient(model, look.pixels, target).abs().sum(1)
        return interpolate(coarse[:, None], size=fine.shape[1:], mode="bilinear", align_corners=False)[:, 0] * fine


@torch.enable_grad()
def guided_gradient(
    model: Explainable, pixels: Float[Tensor, "b 3 h w"], target: TargetFunction
) -> Float[Tensor, "b 3 h w"]:
    """``∂ target / ∂ pixels`` by guided backpropagation."""
    trunk = model.encoder.trunk
    device = next((p.device for p in trunk.parameters()), pixels.device)
    leaf = pixels.detach().clone().requires_grad_()
    with GuidedBackprop():
        features = torch.cat([trunk(part.to(device)).to(pixels.device) for part in leaf.split(CHUNK)])
        score = target(model.head(model.encoder.head(features))).sum()
    return torch.autograd.grad(score, leaf)[0]
