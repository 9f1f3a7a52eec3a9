"""The heads of a detector: a simple feature pyramid and RoI features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .split import freeze

SCALES = (2.0, 1.0, 0.5)
"""Scales of the pyramid's levels, relative to the trunk's map, finest first."""
LARGE = (0.22, 0.44)
"""Relative box sizes (square root of area) at which the next coarser level is used (FPN: 224 of 1024 pixels)."""
GROUPS = 8
MOST = 65536
"""Largest number of channels in a saved file."""


@dataclass(frozen=True)
class HeadSizes:
    channels: int
    out: int
    width: int = 64
    side: int = 4
    n_convolutions: int = 1
    hidden: int = 256

    def __post_init__(self) -> None:
        each = (self.channels, self.out, self.width, self.side, self.hidden)
        whole = all(type(n) is int and 0 < n <= MOST for n in (*each, 1 + self.n_convolutions))
        if not whole or self.width % GROUPS or self.side > 14 or self.n_convolutions > 8:
            raise ValueError(f"the sizes of its heads are invalid: {asdict(self)}")


class RegionHeads(nn.Module):
    """A feature pyramid of three scales (ViTDet, Li et al. 2022, arXiv:2203.16527) and an RoIAlign box head."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.across = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(sizes.channels, width, 1, bias=False), nn.GroupNorm(GROUPS, width),
                nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.GroupNorm(GROUPS, width),
            )
            for _ in SCALES
        )  # fmt: skip
        self.box = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU())
                for _ in range(sizes.n_convolutions)
            )
        )
        self.hidden = nn.Linear(width * sizes.side**2, sizes.hidden)
        self.embed = nn.Linear(sizes.hidden, sizes.out)

    @classmethod
    def restored(cls, facts: Mapping[str, Any]) -> Self:
        made = cls(HeadSizes(**facts))
        freeze(made)
        return made

    def facts(self) -> dict[str, Any]:
        return asdict(self.sizes)

    def levels(self, grid: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d _h _w"], ...]:
        """Return the maps of all levels, finest first."""
        high, wide = grid.shape[2:]
        found = []
        for (mix, *smooth), scale in zip(cast("list[list[nn.Module]]", self.across), SCALES, strict=True):
            level, size = mix(grid), (max(1, round(high * scale)), max(1, round(wide * scale)))
            if size[0] < high:
                level = adaptive_avg_pool2d(level, size)
            elif size != (high, wide):
                level = interpolate(level, size=size, mode="bilinear", align_corners=False)
            for layer in smooth:
                level = layer(level)
            found.append(level)
        return tuple(found)

    def on_level(
        self, level: Float[Tensor, "b d h w"], boxes: Float[Tensor, "n 4"], owner: Int[Tensor, " n"]
    ) -> Float[Tensor, "n _hidden"]:
        """Compute the hidden features of boxes on one level."""
        from torchvision.ops import roi_align

        high, wide = level.shape[2:]
        cells = boxes * boxes.new_tensor([wide, high, wide, high])
        cut = roi_align(level, torch.cat([owner[:, None].to(cells), cells], 1), self.sizes.side, aligned=True)
        return self.hidden(self.box(cut).flatten(1)).relu()

    def read(
        self, levels: tuple[Tensor, ...], boxes: Float[Tensor, "n 4"], owner: Int[Tensor, " n"]
    ) -> Float[Tensor, "n _hidden"]:
        """Compute the hidden features of boxes, each on the level that matches the size of the box."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
        which = torch.bucketize(side, side.new_tensor(LARGE), right=True)
        found = boxes.new_zeros(len(boxes), self.sizes.hidden)
        for i, level in enumerate(levels):
            own = (which == i).nonzero()[:, 0]
            if len(own):
                found = found.index_copy(0, own, self.on_level(level, boxes[own], owner[own]))
        return found
