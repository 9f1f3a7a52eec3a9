"""Score-CAM (Wang et al. 2020, arXiv 1910.01279)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ..bounds import Count, Natural
from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction, scores_of_changes
from .cam import stretched


@attributions.register
@dataclass(frozen=True)
class ScoreCAM(Attribution):
    """Class activation map with channels weighted by the score of the picture masked with each channel.

        L = Σ_k w_k A_k,    w = softmax_k y(x ∘ H_k)        (paper, equations 2 to 4)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, ``x`` the picture and ``y`` the target's logit. ``H_k``
    is ``A_k``, enlarged bilinearly with aligned corners, as in pytorch-grad-cam, and scaled to 0…1. Hidden pixels have
    the mean colour. The paper's baseline score is omitted, because the softmax cancels it.

    Args:
        n_masks: number of channels whose masks are scored: the channels with the largest range. Every other channel
            gets the score of the most similar mask. 0 scores every channel (paper).
        batch_size: number of masked pictures per forward pass.
    """

    name = "score_cam"
    spelt = "Score-CAM"
    paper = "Wang et al. 2020, arXiv:1910.01279"
    needs = "a spatial last layer and pixels"
    cost = "one per channel, or n_masks"
    needs_pixels = True
    engine_alone = True

    n_masks: Natural = 0
    batch_size: Count = 64

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        grid, pixels = model.encoder.layout.to_grid(look.features), look.pixels_for(self.name)

        def logits(masked: Tensor) -> Tensor:
            return model.head(model.encoder.pooled(masked))

        weights = channel_scores(logits, pixels, grid, target, self.n_masks, self.batch_size).softmax(1)
        return torch.einsum("bc,bchw->bhw", weights, grid)


def channel_scores(
    network: Callable[[Tensor], Tensor],
    pixels: Float[Tensor, "b p h w"],
    activations: Float[Tensor, "b c gh gw"],
    target: TargetFunction,
    n_masks: int,
    batch_size: int,
) -> Float[Tensor, "b c"]:
    """Compute the target's score of each picture masked with each of its channels."""
    n_channels = activations.shape[1]
    n = min(n_masks, n_channels) if n_masks else n_channels
    if n == n_channels:
        chosen = owner = torch.arange(n_channels).expand(len(pixels), -1)
    else:
        picked = [representatives(one, n) for one in activations]
        chosen, owner = (torch.stack(part) for part in zip(*picked, strict=True))
    scores = []
    for some in chosen.T.split(max(1, batch_size // max(1, len(pixels)))):
        channels = activations[torch.arange(len(pixels)), some]
        large = interpolate(channels, size=pixels.shape[2:], mode="bilinear", align_corners=True)
        masks = stretched(large, (2, 3), 1e-8)
        logits = network((pixels * masks[:, :, None]).flatten(0, 1)).unflatten(0, masks.shape[:2])
        scores.append(scores_of_changes(target, logits, "logit"))
    return torch.cat(scores).T.gather(1, owner if n < n_channels else chosen)


def representatives(activations: Float[Tensor, "c h w"], n: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " c"]]:
    """Return the ``n`` channels with the largest range, and each channel's most similar one among these."""
    chosen = (activations.amax((1, 2)) - activations.amin((1, 2))).topk(n).indices
    masks = normalize(stretched(activations, (1, 2), 1e-8).flatten(1), dim=1)
    owner = (masks @ masks[chosen].T).argmax(1)
    owner[chosen] = torch.arange(n)
    return chosen, owner
