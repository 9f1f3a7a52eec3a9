"""HiResCAM (Draelos & Carin 2020, arXiv 2011.08891)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class HiResCAM(WeightedCAM):
    """Multiplies each activation by its own gradient and sums the channels.

    ``L_ij = Σ_k ∂y/∂A_k,ij A_k,ij`` (paper, equation 5). Nothing is averaged, so no cell is lit that the network did
    not use; where the logit is linear in the map, the cells add up to it. Behind a mean-pooled linear head it is
    Grad-CAM. The ReLU is left to the display.

    Where a class token reads the patches through a layer norm and attention alone, that product is zero whatever the
    picture. There ``A`` is what each patch's value adds to the class token, and the gradient its mean on the way from
    no value to all, so that the cells add up to what the target loses without them.

    Cost: none beside the pass that predicts; with ``layer``, one forward pass and the backward pass behind it.
    """

    name = "hires_cam"
    spelt = "HiResCAM"
    paper = "Draelos & Carin 2020, arXiv:2011.08891"
    sums_products = True

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return gradient
