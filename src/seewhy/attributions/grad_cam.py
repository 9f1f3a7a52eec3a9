"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class GradCAM(WeightedCAM):
    """Weighs each channel by the mean gradient of the target and sums the channels.

    ``α_k = mean_ij ∂y/∂A_k,ij`` and ``L = Σ_k α_k A_k`` (paper, equations 1 and 2), with ``y`` the logit. The ReLU of
    equation 2 is left to the display, so that evidence against the class is not lost.

    Args:
        layer: an inner layer instead of the last map, at the cost of one forward pass.
        counterfactual: show what speaks *against* the target (paper, section 7): the gradient's sign is reversed before
            the ReLU, so hiding hot places raises ``y``.
    """

    name = "grad_cam"
    spelt = "Grad-CAM"
    paper = "Selvaraju et al. 2017, arXiv:1610.02391"

    counterfactual: bool = False

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        weights = gradient.mean((2, 3), keepdim=True)
        return -weights if self.counterfactual else weights
