"""XGrad-CAM (Fu et al. 2020, arXiv 2008.02312)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM

EPSILON = 1e-7
"""As in pytorch-grad-cam; the authors have none."""


@attributions.register
@dataclass(frozen=True)
class XGradCAM(WeightedCAM):
    """Weighs each channel by its gradient, averaged over the cells in proportion to its activations.

    ``w_k = Σ_ij ∂y/∂A_k,ij A_k,ij / Σ_ij A_k,ij`` and ``L = Σ_k w_k A_k`` (paper, equation 8). Where ``A`` is not
    behind a ReLU, ``Σ A`` may cross zero, and one channel then decides the map: prefer ``hires_cam`` there.
    """

    name = "xgrad_cam"
    spelt = "XGrad-CAM"
    paper = "Fu et al. 2020, arXiv:2008.02312"
    needs = "a spatial last layer whose channels are not negative (behind a ReLU)"

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return (gradient * activations).sum((2, 3), keepdim=True) / (activations.sum((2, 3), keepdim=True) + EPSILON)
