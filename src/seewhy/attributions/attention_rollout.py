"""Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count, OpenPart
from . import attributions
from .attention import read_tokens, run_with_attention
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction


@attributions.register
@dataclass(frozen=True)
class AttentionRollout(Attribution):
    """Product of the attention matrices of all layers, independent of the class.

        R ← Â_l R,    Â = (A + I) / 2 with normalised rows        (paper, section 3)

    ``A`` is the attention matrix of layer ``l`` and ``I`` the identity. ``R``, the product, starts as ``I``. The map is
    the class token's row of ``R``, or the mean of the patch rows if the network averages its patches. All values are 0
    or greater. ``head_fusion`` and ``discard_ratio`` have the meaning of ``jacobgil/vit-explain``, but each row is
    divided by its sum. Networks with parallel attention, windowed attention or attention pooling are not supported.

    Args:
        head_fusion: how to combine heads: ``"mean"`` (paper), ``"max"`` or ``"min"``.
        discard_ratio: fraction of each layer's smallest weights to set to zero, 0 to 1 (paper: 0, vit-explain: 0.9).
        batch_size: number of pictures per forward pass.
    """

    name = "attention_rollout"
    paper = "Abnar & Zuidema 2020, arXiv:2005.00928"
    needs = "pixels and a vision transformer in torch"
    cost = "1"
    needs_pixels = True
    needs_attention = True

    head_fusion: Literal["mean", "max", "min"] = "mean"
    discard_ratio: OpenPart = 0.0
    batch_size: Count = 4

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        grid = model.encoder.layout.to_grid(look.features).shape[2:]
        maps = []
        for seen in run_with_attention(self.name, model, look, self.batch_size):
            start = read_tokens(seen, seen.maps[-1].shape[-1] - grid[0] * grid[1])
            own = [self.residual(weights.detach()) for weights in seen.maps]
            rows = seen.follow(start, own, adds=False)
            maps.append(rows[:, -grid[0] * grid[1] :].unflatten(1, grid))
        return torch.cat(maps).to(look.pooled.device)

    def residual(self, weights: Float[Tensor, "b heads t t"]) -> Float[Tensor, "b t t"]:
        """Compute ``Â`` of a layer."""
        fused = weights.mean(1) if self.head_fusion == "mean" else getattr(weights, f"a{self.head_fusion}")(1)
        n_dropped = int(fused[0].numel() * self.discard_ratio)
        if n_dropped:
            flat = fused.flatten(1)
            lowest = flat.topk(n_dropped, 1, largest=False).indices
            kept = flat.scatter(1, lowest, 0.0)
            kept[:, 0] = flat[:, 0]  # as vit-explain: the class token's look at itself stays
            fused = kept.unflatten(1, fused.shape[1:])
        whole = (fused + torch.eye(fused.shape[1], device=fused.device)) / 2
        return whole / whole.sum(2, keepdim=True)
