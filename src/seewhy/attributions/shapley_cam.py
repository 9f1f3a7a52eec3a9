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
    """Second-order Grad-CAM, which subtracts half the Hessian-vector product from the gradient.

        L = Σ_k α_k A_k,    α_k = mean_ij (g − ½ H A)_k,ij

    ``L`` is the map, ``A_k`` channel ``k`` of the activations ``A``, and ``ij`` a position. ``g`` and ``H`` are the
    gradient and Hessian of the target with respect to ``A``. For a piecewise linear target, ``H`` is zero and the map
    equals Grad-CAM's. The paper therefore explains ``y_c + log softmax(y)_c`` (ReST) instead of the logit ``y_c``.

    Args:
        layer: dotted name of an inner layer; default: the encoder's last map.
        residual_softmax: whether to explain ReST instead of the logit, if the target is one class.
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
