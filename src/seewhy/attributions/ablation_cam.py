"""Ablation-CAM (Desai & Ramaswamy 2020, WACV)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.head import Goal
from ..encoders.base import Layout, Look
from . import attributions
from .base import Attribution, Explainable
from .scores import scores_of_changes


@attributions.register
@dataclass(frozen=True)
class AblationCAM(Attribution):
    """Weighs each channel by what the target loses when the channel is set to zero.

    ``w_k = y − y_k`` with ``y_k`` the logit without channel ``k``, and ``L = Σ_k w_k A_k`` (paper, equations 3 and 4).
    The paper divides ``w_k`` by ``y``, which scales the map of a positive logit only, turns that of a negative one
    upside down and explodes near 0; we leave it out. Of tokens only the patch tokens are set to zero.

    Cost: no forward pass beside the one that predicts. The head alone runs again, on a copy a channel; behind a mean
    only the pooled vector is copied.

    Args:
        batch_size: copies the head sees at once; bounds memory.
    """

    name: ClassVar[str] = "ablation_cam"
    paper: ClassVar[str] = "Desai & Ramaswamy 2020, WACV, doi:10.1109/WACV45572.2020.9093360"
    needs: ClassVar[str] = "a spatial last layer (any CNN or transformer)"
    cost: ClassVar[str] = "0 (the head alone, once a channel)"

    batch_size: int = 256

    @torch.no_grad()
    def attribute(self, model: Explainable, look: Look, target: Goal) -> Float[Tensor, "b h w"]:
        layout, head = model.encoder.layout, model.encoder.head
        grid = layout.to_grid(look.features)
        if model.encoder.is_average:
            pooled = look.pooled[:, :, None, None]
            weights = drops(model.head, pooled.flatten(1), Layout(), target, self.batch_size, pooled=True)
        else:
            weights = drops(lambda f: model.head(head(f)), look.features, layout, target, self.batch_size)
        return torch.einsum("bc,bchw->bhw", weights, grid)


def drops(
    tail: Callable[[Tensor], Tensor],
    features: Tensor,
    layout: Layout,
    target: Goal,
    batch_size: int,
    pooled: bool = False,
) -> Float[Tensor, "b c"]:
    """The target's score less its score without channel ``k``, for every channel.

    Args:
        tail: features → logits.
        features: as the tail takes them.
        layout: how they are arranged.
        target: what of the logits.
        batch_size: copies the tail sees at once.
        pooled: the features are vectors.
    """
    n_pictures = len(features)
    n_channels = features.shape[1] if pooled else layout.to_grid(features).shape[1]
    whole = target(tail(features.clone()))
    lost = []
    for channels in torch.arange(n_channels).split(max(1, batch_size // max(1, n_pictures))):
        copies = features.repeat(len(channels), *[1] * (features.ndim - 1))
        of_copy = channels.repeat_interleave(n_pictures)
        grid = copies if pooled else layout.to_grid(copies)  # a view: the copies change with it
        grid[torch.arange(len(copies)), of_copy] = 0
        logits = tail(copies).unflatten(0, (len(channels), n_pictures))
        lost.append(whole - scores_of_changes(target, logits, "logit"))
    return torch.cat(lost).T
