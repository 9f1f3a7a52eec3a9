"""T-TAME (Ntrougkas, Gkalelis & Mezaris 2024, arXiv 2403.04523), with TAME and L-CAM as settings."""

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
    """Shows the part of the picture that is enough for the class, by a small trained network.

    ``c = attention mechanism(feature maps of several layers)``, one map per class, trained by
    :class:`seewhy.attributions.explainers.FitTTAME`. The map is ``c`` of the target, scaled from 0 (its lowest place)
    to 1 (its highest), as in the authors' code. With a contrast it is ``c_target − c_contrast``, SeeWhy's addition.

    Args:
        explainer: a trained explainer, or its folder; default: the one in the classifier's folder. A loaded explainer
            must have been trained on this very classifier.
        variant: which explainer of the folder: ``"t_tame"``, ``"tame"`` (ISM 2022) or ``"l_cam"`` (ECCVW 2022).
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
                "t_tame makes maps of classes only. Expected a class as the target. Use grad_cam or rise for other "
                "targets."
            )
        given = self.explainer
        found = given if isinstance(given, TTAMEExplainer) else explainer_of(model, self.variant, given)
        assert look.pixels is not None  # the base has checked
        maps, _ = layer_maps(model.encoder, look.pixels, found.layers, look.features)
        logits = class_maps(found, maps, target.index)
        if target.against is not None:
            return logits - class_maps(found, maps, target.against)
        low, high = logits.amin((1, 2), keepdim=True), logits.amax((1, 2), keepdim=True)
        return (logits - low) / (high - low).clamp(min=1e-12)


def class_maps(explainer: TTAMEExplainer, maps: list[Tensor], index: Tensor) -> Float[Tensor, "b h w"]:
    """Each picture's map of its own class, as logits."""
    classes, place = index.unique(return_inverse=True)
    every = explainer.mechanism(maps, classes)
    return every[torch.arange(len(every)), place]
