"""The mask of a COMET classifier (Zhang et al. 2024, arXiv 2407.19308): its own explanation."""

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


@attributions.register
@dataclass(frozen=True)
class COMETMask(Attribution):
    """Shows the part of the picture that the decision was made from: the selector's mask.

    ``S(x)`` in (0, 1), at the resolution of the pixels. Nothing is estimated: the predictor saw ``S ∘ x + (1 − S) ∘ q``
    and nothing else. The mask is of no class: it is the same for every target, and there is none for one class
    against another.

    Cost: one pass of the selector, no pass of the trunk.
    """

    name: ClassVar[str] = "comet"
    spelt: ClassVar[str] = "COMET"
    paper: ClassVar[str] = "Zhang et al. 2024, arXiv:2407.19308"
    needs: ClassVar[str] = "a classifier made with: seewhy fit --method comet"
    cost: ClassVar[str] = "0, and the selector's"
    needs_pixels: ClassVar[bool] = True
    recipe: ClassVar[str] = "comet"

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        selector = getattr(getattr(model, "network", None), "selector", None)
        if selector is None:
            raise InputError(
                "comet shows the mask of a comet classifier, and this classifier has none. A classifier made with "
                "seewhy fit --method comet was expected. Make one, or take grad_cam."
            )
        if isinstance(target, Target) and target.against is not None:
            raise InputError(
                "A contrast was given, and comet's mask is of no class: it has nothing against another one. No "
                "contrast was expected. Leave it out, or take grad_cam."
            )
        assert look.pixels is not None  # the base has checked
        device = next(selector.parameters()).device
        masks: Float[Tensor, "b h w"] = selector(look.pixels.to(device)).cpu()
        return masks
