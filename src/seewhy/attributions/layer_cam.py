"""LayerCAM (Jiang et al. 2021, IEEE TIP 30)."""

from dataclasses import dataclass

from . import attributions
from .cam import Cells, WeightedCAM


@attributions.register
@dataclass(frozen=True)
class LayerCAM(WeightedCAM):
    """Class activation map with each activation weighted by its positive gradient.

        L_ij = Σ_k ReLU(∂y/∂A_k,ij) A_k,ij        (paper, equations 7 and 8)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``y`` the target's logit, and ``ij`` a position. Only
    the display applies the paper's ReLU of the sum.
    """

    name = "layer_cam"
    spelt = "LayerCAM"
    paper = "Jiang et al. 2021, IEEE TIP 30, doi:10.1109/TIP.2021.3089943"

    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        return gradient.relu()
