"""Spatial search: a picture is many overlapping parts, and parts are compared (Razavian et al. 2014, 1403.6382)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..types import Crop


def sub_patches(levels: int) -> list[Crop]:
    """``i²`` equal, overlapping parts at each level ``i = 1 … levels``, whose union is the whole picture.

    The paper gives no size; here a part of level ``i`` has the side ``2 / (i + 1)``, so that neighbours overlap by
    half. Level 1 is the whole picture. Four levels are 30 parts, three are the first 14 of them.

    Example:
        >>> [tuple(round(v, 2) for v in crop.box) for crop in sub_patches(2)][1:3]
        [(0.0, 0.0, 0.67, 0.67), (0.33, 0.0, 1.0, 0.67)]
    """
    if levels < 1:
        raise InputError(f"{levels} levels were asked for. Expected one or more. The paper takes 4 and, to ask, 3.")
    crops = []
    for level in range(1, levels + 1):
        side = 2 / (level + 1)
        starts = [0.0] if level == 1 else [i * (1 - side) / (level - 1) for i in range(level)]
        crops += [Crop((left, top, min(left + side, 1.0), min(top + side, 1.0))) for top in starts for left in starts]
    return crops


def n_patches(levels: int) -> int:
    """Parts of this many levels: 1, 5, 14, 30, …"""
    return levels * (levels + 1) * (2 * levels + 1) // 6


def spatial_distance(query: Float[Tensor, "a d"], references: Float[Tensor, "n b d"]) -> Float[Tensor, " n"]:
    """``D(q, r) = 1/A Σ_a min_b ‖f_a(q) − f_b(r)‖`` of unit vectors, 0…2.

    Example:
        >>> spatial_distance(torch.eye(2), torch.eye(2)[None]).tolist()
        [0.0]
    """
    cosine = torch.einsum("ad,nbd->nab", query, references)
    return (2 - 2 * cosine).clamp(min=0).sqrt().amin(2).mean(1)
