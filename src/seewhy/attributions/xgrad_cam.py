"""XGrad-CAM (Fu et al. 2020, arXiv 2008.02312)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM

EPSILON = 1e-7
"""The value of pytorch-grad-cam; the authors have none."""


@attributions.register
@dataclass(frozen=True)
class XGradCAM(WeightedCAM):
    """Class activation map with channels weighted by their mean gradient, in which large activations count more.

        L = Σ_k w_k A_k,    w_k = Σ_ij ∂y/∂A_k,ij A_k,ij / Σ_ij A_k,ij        (paper, equation 8)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``y`` the target's logit, and ``ij`` a position. If
    ``A`` is not the output of a ReLU, ``Σ_ij A_k,ij`` may be near zero, and one channel then dominates the map. Use
    ``hires_cam`` instead.
    """

    name = "xgrad_cam"
    spelt = "XGrad-CAM"
    paper = "Fu et al. 2020, arXiv:2008.02312"
    needs = "a spatial last layer whose channels are not negative (behind a ReLU)"

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return (gradient * activations).sum((2, 3), keepdim=True) / (activations.sum((2, 3), keepdim=True) + EPSILON)
