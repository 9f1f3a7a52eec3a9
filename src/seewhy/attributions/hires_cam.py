"""HiResCAM (Draelos & Carin 2020, arXiv 2011.08891)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class HiResCAM(WeightedCAM):
    """Product of activations and their gradients, summed over channels.

        L_ij = Σ_k ∂y/∂A_k,ij A_k,ij        (paper, equation 5)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``y`` the target's logit, and ``ij`` a position. If
    ``y`` is linear in ``A``, the values of the map add up to ``y``. If the head reads patches only through a layer norm
    and attention, the sum in equation 5 is zero. The map then shows the contribution of each patch
    (:mod:`seewhy.attributions.attended`).
    """

    name = "hires_cam"
    spelt = "HiResCAM"
    paper = "Draelos & Carin 2020, arXiv:2011.08891"
    sums_products = True

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return gradient
