"""Where a ProtoPNet's prototypes answer (Chen et al. 2019, arXiv 1806.10574): its own explanation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ....attributions import attributions
from ....attributions.base import Attribution, Explainable
from ....encoders.base import EncoderOutput
from ....errors import InputError
from ....heads.head import Target, TargetFunction
from .network import ProtoPNetNetwork, similarity


@attributions.register
@dataclass(frozen=True)
class ProtoPNetMap(Attribution):
    """Shows where patches are like the prototypes that speak for the class.

    ``Σ_p (W_tp - mean_k W_kp) (g_p(cell) - min_cell g_p)``: the similarity map of every prototype, weighed as the last
    layer weighs it. The logit itself rests on each prototype's best cell alone; the map shows the others too, as the
    paper's figures do one prototype at a time (section 2.4), and so does not add up to it.

    Cost: none beside the pass that predicts.
    """

    name: ClassVar[str] = "protopnet"
    spelt: ClassVar[str] = "ProtoPNet"
    paper: ClassVar[str] = "Chen et al. 2019, arXiv:1806.10574"
    needs: ClassVar[str] = "a classifier made with: seewhy fit --method protopnet"
    cost: ClassVar[str] = "0"
    recipe: ClassVar[str] = "protopnet"

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        network = network_of(model)
        if not isinstance(target, Target):
            raise InputError("protopnet has maps of classes only. A class was expected as target. Use grad_cam.")
        maps = similarity(network.layer.distances(network.on.layout.to_grid(look.features)))
        rows = target.of(model.head.weight - model.head.weight.mean(0))
        return torch.einsum("bp,bphw->bhw", rows, maps - maps.amin((2, 3), keepdim=True))


def network_of(model: Explainable) -> ProtoPNetNetwork:
    """The prototypes of a classifier."""
    network = getattr(model, "network", None)
    if not isinstance(network, ProtoPNetNetwork):
        raise InputError(
            "protopnet shows the prototypes of a ProtoPNet, and this classifier is none. A classifier made with "
            "seewhy fit --method protopnet was expected. Make one, or take grad_cam and nearest patches."
        )
    return network
