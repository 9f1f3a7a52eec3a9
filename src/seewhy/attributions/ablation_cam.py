"""Ablation-CAM (Desai & Ramaswamy 2020, WACV)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Count
from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction, scores_of_changes


@attributions.register
@dataclass(frozen=True)
class AblationCAM(Attribution):
    """Class activation map with channels weighted by the decrease of the score without the channel.

        L = Σ_k w_k A_k,    w_k = y − y_k        (paper, equations 3 and 4)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``y`` the target's logit, and ``y_k`` this logit with
    channel ``k`` set to zero. The paper also divides ``w_k`` by ``y``, which would invert the map of a negative logit.
    In a vision transformer, channel ``k`` of the class token keeps its value.

    Args:
        batch_size: number of channels that are set to zero per forward pass of the head.
    """

    name = "ablation_cam"
    spelt = "Ablation-CAM"
    paper = "Desai & Ramaswamy 2020, WACV, doi:10.1109/WACV45572.2020.9093360"
    needs = "a spatial last layer (any CNN or transformer)"
    cost = "0 (the head alone, once per channel)"

    batch_size: Count = 256

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        layout, head, is_average = model.encoder.layout, model.encoder.head, model.encoder.is_average
        grid = layout.to_grid(look.features)
        features = look.pooled[:, :, None, None] if is_average else look.features

        def logits(features: Tensor) -> Float[Tensor, "n k"]:
            return model.head(features[:, :, 0, 0] if is_average else head(features))

        def without(channels: Int[Tensor, "m b"]) -> Float[Tensor, "m b"]:
            copies = features.repeat(len(channels), *[1] * (features.ndim - 1))
            silence(copies if is_average else layout.to_grid(copies), channels.flatten())
            return scores_of_changes(target, logits(copies).unflatten(0, channels.shape), "logit")

        every = torch.arange(grid.shape[1], device=grid.device).expand(len(grid), -1)
        lost = drops(without, target(logits(features.clone())), every, self.batch_size)
        return torch.einsum("bc,bchw->bhw", lost, grid)


def drops(
    without: Callable[[Int[Tensor, "m b"]], Float[Tensor, "m b"]],
    whole: Float[Tensor, " b"],
    channels: Int[Tensor, "b n"],
    batch_size: int,
) -> Float[Tensor, "b n"]:
    """Compute, for each picture, the decrease of the target's score when each channel is set to zero."""
    at_once = max(1, batch_size // max(1, len(whole)))
    return torch.cat([whole - without(some) for some in channels.T.split(at_once)]).T


def silence(grid: Float[Tensor, "n c h w"], channels: Int[Tensor, " n"]) -> None:
    """Set one channel of each row to 0, in place."""
    grid[torch.arange(len(grid), device=grid.device), channels] = 0
