"""Transformer attribution without relevance propagation (Chefer, Gur & Wolf, ICCV 2021, arXiv 2103.15679)."""

from dataclasses import dataclass

import torch

from ..bounds import Count
from . import attributions
from .attention import read_tokens, run_with_attention
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction, scores_of_rows


@attributions.register
@dataclass(frozen=True)
class Chefer(Attribution):
    """Attention of all layers, weighted by its positive effect on the class's score.

        R ← R + Ā_l R,    Ā = mean over heads of ReLU(∂y/∂A ⊙ A)        (paper, equations 5 and 6)

    ``A`` is the attention of layer ``l``, ``y`` the target's logit and ``I`` the identity. ``R``, the relevance, starts
    as ``I``. The map is the class token's row of ``R``, or the mean of the patch rows of ``R − I`` if the network
    averages its patches. All values are 0 or greater. Networks with parallel attention, windowed attention or attention
    pooling are not supported.

    Args:
        batch_size: number of pictures per forward pass.
    """

    name = "chefer"
    paper = "Chefer et al. 2021, arXiv:2103.15679"
    needs = "pixels and a vision transformer in torch"
    cost = "1 forward and 1 backward"
    needs_pixels = True
    needs_attention = True

    batch_size: Count = 4

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        grid = model.encoder.layout.to_grid(look.features).shape[2:]
        n = grid[0] * grid[1]
        with torch.no_grad():
            others = model.head(look.pooled)
        maps = []
        for seen in run_with_attention(self.name, model, look, self.batch_size):
            start = read_tokens(seen, seen.maps[-1].shape[-1] - n)
            with torch.enable_grad():
                score = scores_of_rows(target, model.head(seen.pooled), others, seen.first, 1).sum()
            slopes = torch.autograd.grad(score, seen.maps)
            weights = [(s * own.detach()).clamp(min=0).mean(1) for s, own in zip(slopes, seen.maps, strict=True)]
            rows = seen.follow(start, weights, adds=True)
            maps.append((rows[:, -n:] - start[:, -n:]).unflatten(1, grid))
        return torch.cat(maps).to(look.pooled.device)
