"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class GradCAM(WeightedCAM):
    """Shows where the evidence for a class lies: channels weighed by the mean gradient of its score.

    ``α_k = mean_ij ∂y/∂A_k,ij`` and ``L = Σ_k α_k A_k`` (paper, equations 1 and 2), with ``y`` the logit. Only the
    display applies the ReLU of equation 2, so what speaks against the class is kept.

    Args:
        layer: an inner layer instead of the last map; costs one more forward pass.
        counterfactual: show what speaks *against* the class (paper, section 7): hiding hot places then raises ``y``.
    """

    name = "grad_cam"
    spelt = "Grad-CAM"
    paper = "Selvaraju et al. 2017, arXiv:1610.02391"

    counterfactual: bool = False

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        weights = gradient.mean((2, 3), keepdim=True)
        return -weights if self.counterfactual else weights
