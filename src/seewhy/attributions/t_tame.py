"""T-TAME (Ntrougkas, Gkalelis & Mezaris 2024, arXiv 2403.04523), with its variants TAME and L-CAM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, Target, TargetFunction
from .explainers import TTAMEExplainer, Variant, explainer_of
from .layers import layer_maps


@attributions.register
@dataclass(frozen=True)
class TTAME(Attribution):
    """Map of a trained attention mechanism: the part of the picture from which the class can be predicted.

    The mechanism computes one map per class from the feature maps of several layers; :class:`FitTTAME` trains it. The
    target's map is scaled to 0…1, as in the authors' code. With a contrast class, which the paper does not have, the
    result is the difference of the two maps.

    Args:
        explainer: explainer that was trained for the same classifier, or its folder; default: the explainer in the
            classifier's folder.
        variant: variant of the explainer: ``"t_tame"``, ``"tame"`` (ISM 2022) or ``"l_cam"`` (ECCVW 2022).
    """

    name = "t_tame"
    spelt = "T-TAME"
    paper = "Ntrougkas et al. 2024, arXiv:2403.04523"
    needs = "pixels and an explainer trained with: seewhy fit --task explainer"
    cost = "1"
    needs_pixels = True
    needs_training = True

    explainer: TTAMEExplainer | str | None = None
    variant: Variant = "t_tame"

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        if not isinstance(target, Target):
            raise InputError(
                "The target of t_tame must be a class, got a function of the logits. Use grad_cam or rise."
            )
        given = self.explainer
        found = given if isinstance(given, TTAMEExplainer) else explainer_of(model, self.variant, given)
        maps, _ = layer_maps(model.encoder, look.pixels_for(self.name), found.layers, look.features)
        logits = class_maps(found, maps, target.index)
        if target.against is not None:
            return logits - class_maps(found, maps, target.against)
        low, high = logits.amin((1, 2), keepdim=True), logits.amax((1, 2), keepdim=True)
        return (logits - low) / (high - low).clamp(min=1e-12)


def class_maps(explainer: TTAMEExplainer, maps: list[Tensor], index: Tensor) -> Float[Tensor, "b h w"]:
    """Return each picture's logit map of its class."""
    classes, place = index.unique(return_inverse=True)
    every = explainer.mechanism(maps, classes)
    return every[torch.arange(len(every)), place]
