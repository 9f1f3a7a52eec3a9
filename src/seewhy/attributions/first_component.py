"""The first principal component of a map's cells, with a sign that means something."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-5
"""Part of its terms' sizes below which a sum of them is taken for zero: gradients are rounded on their way back."""


def first_component(maps: Float[Tensor, "b c h w"], strength: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Projection of each cell (its channels, less their mean over cells) on the first right singular vector."""
    if not maps.isfinite().all():  # the decomposition would raise; the base says it better
        return torch.full_like(strength, torch.nan)
    cells = maps.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    left, values, _ = torch.linalg.svd(cells, full_matrices=False)
    component = left[..., 0] * values[:, :1]
    sizes = maps.abs().sum(1).flatten(1)
    speaks = (component * strength.flatten(1)).sum(1, keepdim=True)
    unclear = speaks.abs() <= ROUNDING * (component.abs() * sizes).sum(1, keepdim=True)
    speaks = torch.where(unclear, (component * sizes).sum(1, keepdim=True), speaks)
    sign = torch.where(speaks < 0, -1.0, 1.0)
    return (component * sign).unflatten(1, maps.shape[2:])
