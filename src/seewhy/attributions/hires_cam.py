"""HiResCAM (Draelos & Carin 2020, arXiv 2011.08891)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class HiResCAM(WeightedCAM):
    """Multiplies each activation by its own gradient and sums the channels.

    ``L_ij = Σ_k ∂y/∂A_k,ij A_k,ij`` (paper, equation 5). Where the logit is linear in the map, the cells add up to it.
    Where patches are read through a layer norm and attention alone, that product is always zero. There ``A`` is what
    each patch's value adds, and the gradient its mean between no value and the full values.
    """

    name = "hires_cam"
    spelt = "HiResCAM"
    paper = "Draelos & Carin 2020, arXiv:2011.08891"
    sums_products = True

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return gradient
