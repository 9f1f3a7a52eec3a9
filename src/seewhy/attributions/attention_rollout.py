"""Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import EncoderOutput
from ..errors import InputError
from ..heads.head import TargetFunction
from . import attributions
from .attention import read_tokens, run_with_attention
from .base import Attribution, Explainable


@attributions.register
@dataclass(frozen=True)
class AttentionRollout(Attribution):
    """Follows attention from the pooled token down through all layers; the same for every class.

    ``R ← Â_l R`` with ``Â = (A + I) / 2``, each row divided by its sum (paper, section 3), ``R = I`` at first. The
    map is the row of ``R`` that belongs to the class token, or the mean of the patch rows where the network pools the
    mean. It is never negative, and it knows nothing of the target: a control as much as an explanation.

    One attention a block, each on the one before it: attention side by side, in windows or that pools is refused.

    Follows ``jacobgil/vit-explain`` in ``head_fusion`` and ``discard_ratio``, except that rows are divided by their
    own sums (there, each column by the sum of the row of that number), and that the map is not divided by its maximum.

    Args:
        head_fusion: how heads become one map; the paper takes the mean.
        discard_ratio: the part of each layer's smallest weights that is set to zero; the paper discards none,
            vit-explain 0.9.
        batch_size: pictures in memory at once.

    Cost: one forward pass in plain torch and the backward pass of the last block.
    """

    name: ClassVar[str] = "attention_rollout"
    paper: ClassVar[str] = "Abnar & Zuidema 2020, arXiv:2005.00928"
    needs: ClassVar[str] = "pixels and a vision transformer in torch"
    cost: ClassVar[str] = "1"
    needs_pixels: ClassVar[bool] = True
    needs_attention: ClassVar[bool] = True

    head_fusion: Literal["mean", "max", "min"] = "mean"
    discard_ratio: float = 0.0
    batch_size: int = 4

    def __post_init__(self) -> None:
        if self.head_fusion not in ("mean", "max", "min"):
            raise InputError(f"head_fusion is {self.head_fusion!r}. 'mean', 'max' or 'min' was expected. Choose one.")
        if not 0 <= self.discard_ratio < 1:
            raise InputError(f"discard_ratio is {self.discard_ratio}. A part of 1 was expected. Give 0 to below 1.")

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        grid = model.encoder.layout.to_grid(look.features).shape[2:]
        maps = []
        for seen in run_with_attention(self.name, model, look, self.batch_size):
            rows = read_tokens(seen, seen.maps[-1].shape[-1] - grid[0] * grid[1])
            # A row times a product of matrices, last layer first: never a matrix times a matrix.
            for layer in reversed(range(len(seen.maps))):
                rows = (seen.at(rows, layer)[:, None] @ self.residual(seen.maps[layer].detach()))[:, 0]
                rows = seen.before(rows, layer)
            maps.append(rows[:, -grid[0] * grid[1] :].unflatten(1, grid))
        return torch.cat(maps).to(look.pooled.device)

    def residual(self, weights: Float[Tensor, "b heads t t"]) -> Float[Tensor, "b t t"]:
        """``Â`` of one layer."""
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
