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
    """Weighs each channel by how far the class's score falls when the channel is set to zero.

    ``w_k = y − y_k`` with ``y_k`` the logit without channel ``k``, and ``L = Σ_k w_k A_k`` (paper, equations 3 and 4).
    The paper divides ``w_k`` by ``y``, which inverts the map of a negative logit; SeeWhy does not. Of tokens, only the
    patch tokens are set to zero.

    Args:
        batch_size: copies in memory at once; changes memory, not the map.
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
    """The target's score minus its score without a channel, for every channel of each picture."""
    at_once = max(1, batch_size // max(1, len(whole)))
    return torch.cat([whole - without(some) for some in channels.T.split(at_once)]).T


def silence(grid: Float[Tensor, "n c h w"], channels: Int[Tensor, " n"]) -> None:
    """Set one channel of each row to 0; the tensor of which ``grid`` is a view changes too."""
    grid[torch.arange(len(grid), device=grid.device), channels] = 0
