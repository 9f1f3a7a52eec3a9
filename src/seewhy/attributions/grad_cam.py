"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class GradCAM(WeightedCAM):
    """Class activation map with channels weighted by the mean gradient of the class's score.

        L = Σ_k α_k A_k,    α_k = mean_ij ∂y/∂A_k,ij        (paper, equations 1 and 2)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``y`` the target's logit, and ``ij`` a position. The map
    keeps its sign; only its display applies the ReLU of equation 2.

    Args:
        layer: dotted name of an inner layer, which costs a second forward pass; default: the encoder's last map.
        counterfactual: whether to show the evidence *against* the class (paper, section 7).
    """

    name = "grad_cam"
    spelt = "Grad-CAM"
    paper = "Selvaraju et al. 2017, arXiv:1610.02391"

    counterfactual: bool = False

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        weights = gradient.mean((2, 3), keepdim=True)
        return -weights if self.counterfactual else weights
