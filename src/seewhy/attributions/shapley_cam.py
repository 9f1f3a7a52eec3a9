"""ShapleyCAM (Cai 2025, arXiv 2501.06261)."""

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, Target, TargetFunction
from .cam import weighted_sum
from .layers import bends_of, layer_leaves, slopes_of, to_grid


@attributions.register
@dataclass(frozen=True)
class ShapleyCAM(Attribution):
    """Grad-CAM to second order: weighs each channel by its gradient less half its curvature.

    ``α_k = mean_ij (g − ½ H A)_k,ij`` and ``L = Σ_k α_k A_k`` with ``g`` the gradient of the target in ``A`` and ``H``
    its Hessian. Where the target is piecewise linear in ``A`` it is Grad-CAM. The paper therefore explains ``y_c + log
    softmax(y)_c`` (ReST), which depends on the other classes and is not flat where the class is sure.

    Args:
        layer: an inner layer instead of the last map.
        residual_softmax: explain the paper's ReST instead of the logit. A contrast, or another function of the
            logits, is explained directly.
    """

    name = "shapley_cam"
    spelt = "ShapleyCAM"
    paper = "Cai 2025, arXiv:2501.06261"
    needs = "a spatial last layer (any CNN or transformer)"
    cost = "0 (an inner layer: 1 and two backward passes behind it)"

    layer: str | None = None
    residual_softmax: bool = True

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        goal = target
        if self.residual_softmax and isinstance(target, Target) and target.against is None:
            goal = lambda logits: target(logits) + target(logits.log_softmax(1))  # noqa: E731
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused one has no second derivative
            leaves, features = layer_leaves(model, look, self.layer)
            logits = model.head(model.encoder.head(torch.cat(features).to(look.pooled.device)))
            slopes = slopes_of(goal(logits).sum(), leaves, self.layer, again=True)
            bends = bends_of(slopes, leaves)
        halved = [slope.detach() - bend / 2 for slope, bend in zip(slopes, bends, strict=True)]
        activations, weights = (to_grid(parts, model.encoder, look, self.layer) for parts in (leaves, halved))
        return weighted_sum(weights.mean((2, 3), keepdim=True), activations)
