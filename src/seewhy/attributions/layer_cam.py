"""LayerCAM (Jiang et al. 2021, IEEE TIP 30)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import attributions
from .cam import WeightedCAM


@attributions.register
@dataclass(frozen=True)
class LayerCAM(WeightedCAM):
    """Weighs each activation by the positive part of its own gradient; made for early layers.

    ``L_ij = Σ_k ReLU(∂y/∂A_k,ij) A_k,ij`` (paper, equations 7 and 8). The ReLU of the sum is left to the display; on
    activations that are never negative it does nothing, so such a map has no negative cell.

    Cost: none beside the pass that predicts; with ``layer``, one forward pass and the backward pass behind it.
    """

    name: ClassVar[str] = "layer_cam"
    spelt: ClassVar[str] = "LayerCAM"
    paper: ClassVar[str] = "Jiang et al. 2021, IEEE TIP 30, doi:10.1109/TIP.2021.3089943"

    def weights(
        self, activations: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c gh gw"]
    ) -> Float[Tensor, "b c wh ww"]:
        return gradient.relu()
