"""The first principal component of a map's cells, with a sign that means something."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def first_component(maps: Float[Tensor, "b c h w"], strength: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Projection of each cell (its channels, less their mean over cells) on the first right singular vector.

    Args:
        maps: the cells.
        strength: the sign, arbitrary in itself, is the one that correlates positively with this.
    """
    if not maps.isfinite().all():  # the decomposition would raise; the base says it better
        return torch.full_like(strength, torch.nan)
    cells = maps.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    left, values, _ = torch.linalg.svd(cells, full_matrices=False)
    component = left[..., 0] * values[:, :1]
    sign = torch.where((component * strength.flatten(1)).sum(1, keepdim=True) < 0, -1.0, 1.0)
    return (component * sign).unflatten(1, maps.shape[2:])
