"""Whether two pictures that look alike are the same one, by their details."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize, pad

AROUND = 9
"""Points of 64 whose mean is taken away from the one in their middle: what is left is detail."""
FAINT = 8.0
"""Grey levels of 255: spread around a point above which its detail counts alike, so that outlines do not drown it."""
CUTS = (0.0, 0.02, 0.05)
"""Parts of a side by which one of two copies may be cut on each side."""
STEP = 256


def details(fine: Sequence[UInt8[np.ndarray, "s s"]]) -> Float[Tensor, "n cut point"]:
    """Every picture whole and cut: its points less those around them, as a part of their spread, of length 1; 0 where
    it has none."""
    grey = torch.from_numpy(np.stack(fine))[:, None]
    made = [torch.stack([_detail(_cut(part.float(), by)) for by in CUTS], dim=1) for part in grey.split(STEP)]
    return torch.cat(made)


def agreement(
    of: Float[Tensor, "n cut point"],
    first: Int[Tensor, " pair"],
    second: Int[Tensor, " pair"],
) -> Float[Tensor, " pair"]:
    """Correlation of two pictures' details, one mirrored or not, the one or the other cut, as suits them best.

    Args:
        of: as :func:`details` gives them.
        first, second: places of both.
    """
    side = round(of.shape[2] ** 0.5)
    found = []
    for i, j in zip(first.split(STEP), second.split(STEP), strict=True):
        x, y = of[i], of[j]
        both = (x, x.unflatten(2, (side, side)).flip(3).flatten(2))
        best = [torch.maximum((a * y[:, :1]).sum(2).amax(1), (a[:, :1] * y).sum(2).amax(1)) for a in both]
        found.append(torch.maximum(*best))
    return torch.cat(found) if found else torch.zeros(0)


def _cut(grey: Float[Tensor, "n 1 s s"], part: float) -> Float[Tensor, "n 1 s s"]:
    side, edge = grey.shape[-1], round(part * grey.shape[-1])
    inside = grey[..., edge : side - edge, edge : side - edge]
    return interpolate(inside, (side, side), mode="bilinear", antialias=True, align_corners=False)


def _detail(grey: Float[Tensor, "n 1 s s"]) -> Float[Tensor, "n point"]:
    left = grey - _around(grey)
    spread = _around(left**2).sqrt()
    left = (left / (spread + FAINT)).flatten(1)
    left = left - left.mean(1, keepdim=True)
    return torch.where(left.norm(dim=1, keepdim=True) > 1, normalize(left, dim=1), 0.0)


def _around(values: Float[Tensor, "n 1 s s"]) -> Float[Tensor, "n 1 s s"]:
    return avg_pool2d(pad(values, [AROUND // 2] * 4, mode="replicate"), AROUND, 1)
