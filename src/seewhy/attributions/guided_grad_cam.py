"""Guided Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391, section 3.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction, eager_features
from .grad_cam import GradCAM
from .layers import CHUNK

RECTIFIERS: tuple[Any, ...] = (
    functional.relu,
    functional.relu_,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    functional.relu6,
    functional.hardtanh,
    functional.silu,
    functional.gelu,
)
"""ReLU, as in the paper, and activations with a similar role: ReLU6, SiLU, GELU."""


@attributions.register
@dataclass(frozen=True)
class GuidedGradCAM(Attribution):
    """Grad-CAM times the absolute guided gradient, at pixel resolution.

        L = up(L_GradCAM) · Σ_rgb |guided ∂y/∂x|

    ``L_GradCAM`` is Grad-CAM's map, which ``up`` enlarges bilinearly, ``y`` the target's logit and ``x`` the pixels.
    The product has the sign of Grad-CAM's map. Gradients are guided at ReLU, ReLU6, SiLU and GELU. Guided gradients
    show edges even in a network with random weights (Adebayo et al. 2018, arXiv 1810.03292). Only the Grad-CAM factor
    depends on the class.

    Args:
        layer: dotted name of an inner layer for the Grad-CAM factor.
    """

    name = "guided_grad_cam"
    spelt = "Guided Grad-CAM"
    paper = "Selvaraju et al. 2017, arXiv:1610.02391"
    needs = "pixels and a network in torch with ReLU, ReLU6, SiLU or GELU"
    cost = "1 forward and 1 backward"
    needs_pixels = True

    layer: str | None = None

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        coarse = GradCAM(layer=self.layer).attribute(model, look, target)
        fine = guided_gradient(model, look.pixels_for(self.name), target).abs().sum(1)
        large = functional.interpolate(coarse[:, None], size=fine.shape[1:], mode="bilinear", align_corners=False)
        return large[:, 0] * fine


@torch.enable_grad()
def guided_gradient(
    model: Explainable, pixels: Float[Tensor, "b 3 h w"], target: TargetFunction
) -> Float[Tensor, "b 3 h w"]:
    """Compute ``∂ target / ∂ pixels`` by guided backpropagation."""
    leaf = pixels.detach().clone().requires_grad_()
    with GuidedBackprop():
        features = torch.cat([eager_features(model, part) for part in leaf.split(CHUNK)])
        score = target(model.head(model.encoder.head(features))).sum()
    return torch.autograd.grad(score, leaf)[0]


class GuidedBackprop(TorchFunctionMode):
    """A context manager for guided backpropagation (Springenberg et al. 2015, arXiv 1412.6806)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in RECTIFIERS and out.requires_grad:
            out.register_hook(lambda gradient: gradient.clamp(min=0))
        return out
