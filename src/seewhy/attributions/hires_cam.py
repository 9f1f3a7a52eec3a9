"""HiResCAM (Draelos & Carin 2020, arXiv 2011.08891)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class HiResCAM(WeightedCAM):
    """Product of activations and their gradients, summed over channels.

        L_ij = Σ_k ∂y/∂A_k,ij A_k,ij        (paper, equation 5)

    If the logit is linear in the map, the map adds up to the logit. If the head reads patches only through a layer norm
    and attention, equation 5 is zero. The map then shows the contribution of each patch, see
    :mod:`seewhy.attributions.attended`.
    """

    name = "hires_cam"
    spelt = "HiResCAM"
    paper = "Draelos & Carin 2020, arXiv:2011.08891"
    sums_products = True

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return gradient
