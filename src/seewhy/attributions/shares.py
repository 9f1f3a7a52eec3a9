"""Distribution of a target's evidence over the positions of the feature map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .attended import Score, cells_evidence, reading_of
from .base import EncoderOutput, Explainable, Maps, Target, TargetFunction, feature_gradient


def cell_evidence(model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
    """Compute the signed contribution of each position to the target's logit, minus the mean over classes.

    With global average pooling, the contributions add up to the logit, up to a constant. If the head reads patches
    through attention, :mod:`seewhy.attributions.attended` computes the contributions. With other heads, a contribution
    is gradient times feature.
    """
    grid = model.encoder.layout.to_grid(look.features)
    if model.encoder.is_average and isinstance(target, Target):
        slope = model.head.slope(look.pooled, target)
        return torch.einsum("bc,bchw->bhw", slope, grid) / (grid.shape[2] * grid.shape[3])
    score: Score = lambda pooled: target(model.head(pooled))  # noqa: E731
    if isinstance(target, Target):
        slope = model.head.slope(look.pooled, target)
        score = lambda pooled: (pooled * slope).sum(1)  # noqa: E731
    parts = cells_evidence(model, look, score, reading_of(model.encoder, look.features))
    return (feature_gradient(model, look, target) * grid).sum(1) if parts is None else parts


def shares(evidence: Maps) -> Maps:
    """Divide the positive contributions by their sum."""
    positive = evidence.clamp(min=0)
    return positive / positive.sum((1, 2), keepdim=True).clamp(min=1e-12)


def strongest_cells(share: Float[Tensor, "h w"], n: int, apart: int = 2) -> list[tuple[int, int]]:
    """Return up to ``n`` positions with the largest positive shares, at least ``apart`` positions from each other."""
    chosen: list[tuple[int, int]] = []
    values, width = share.flatten().tolist(), share.shape[1]
    for flat in sorted(range(len(values)), key=lambda i: -values[i]):
        row, column = divmod(flat, width)
        if len(chosen) == n or values[flat] <= 0:
            break
        if all(max(abs(row - r), abs(column - c)) >= apart for r, c in chosen):
            chosen.append((row, column))
    return chosen
