"""The attention mechanism of T-TAME, TAME and L-CAM: feature maps of a frozen network → one map a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

Variant = Literal["t_tame", "tame", "l_cam"]

LARGEST_SIDE = 56
"""A first layer finer than this is brought down to it, as in the authors' code."""


class AttentionMechanism(nn.Module):
    """``c = W [r(A_1), …, r(A_n)] + b`` with ``A_i = ReLU(BN(U_i F_i + u_i) + F_i)``, ``r`` bilinear to one size.

    ``l_cam`` has no ``A_i``: ``c = W F + b``. As ``W`` acts on each place alone, it is applied before ``r``, on each
    layer's own grid and for the classes asked for only; the result is the same and costs a fraction.

    Args:
        channels: of each layer's map.
        n_classes: rows of ``W``.
        variant: ``"t_tame"`` and ``"tame"`` are the same mechanism, trained differently.
    """

    def __init__(self, channels: Sequence[int], n_classes: int, variant: Variant = "t_tame") -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.variant = variant
        mixed = () if variant == "l_cam" else self.channels
        self.mixes = nn.ModuleList(nn.Conv2d(c, c, 1) for c in mixed)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in mixed)
        self.last = nn.Conv2d(sum(self.channels), n_classes, 1)

    def forward(
        self, maps: Sequence[Float[Tensor, "b _c _h _w"]], classes: Int[Tensor, " m"]
    ) -> Float[Tensor, "b m h w"]:
        """Maps, as logits, of some classes, at the first layer's resolution."""
        side = (min(maps[0].shape[2], LARGEST_SIDE), min(maps[0].shape[3], LARGEST_SIDE))
        assert self.last.bias is not None
        total = self.last.bias[classes][:, None, None]
        for i, (one, weight) in enumerate(zip(maps, self.last.weight[classes].split(self.channels, 1), strict=True)):
            mixed = one if self.variant == "l_cam" else (self.norms[i](self.mixes[i](one)) + one).relu()
            total = total + resized(conv2d(mixed, weight), side)
        return total


def resized(maps: Float[Tensor, "b c _h _w"], side: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Bilinear; a map of the right size as it is."""
    if tuple(maps.shape[2:]) == tuple(side):
        return maps
    return interpolate(maps, size=side, mode="bilinear", align_corners=False)


def masked(
    pixels: Float[Tensor, "b 3 h w"],
    masks: Float[Tensor, "b gh gw"],
    fill: Literal["black", "mean"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "b 3 h w"]:
    """Pictures times masks: what is hidden becomes black, or the colour that is zero in normalised pixels."""
    large = resized(masks[:, None], (pixels.shape[2], pixels.shape[3]))
    if fill == "mean":
        return pixels * large
    black = -(torch.tensor(mean) / torch.tensor(std)).to(pixels)[:, None, None]
    return black + (pixels - black) * large
