"""A detector's heads on a trunk's last map: a simple feature pyramid, and what makes a vector of each box."""

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
"""Of the levels, finest first, in cells of the trunk's map."""
LARGE = (0.22, 0.44)
"""Root of a box's part of the picture from which it is read off the next coarser level (FPN's 224 pixels of 1024)."""
GROUPS = 8
MOST = 65536
"""Channels at most, in a card that is read from a file."""


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
            raise ValueError(f"its heads are {asdict(self)}")


class RegionHeads(nn.Module):
    """Maps of three scales from one (ViTDet, Li et al. 2022, arXiv:2203.16527), and boxes cut out of them by RoIAlign,
    which go through convolutions and one hidden layer, and end as vectors among the texts.
    """

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
        """The maps, finest first; mixing channels before cells gives the same result with less work."""
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
        """The features of one level's boxes before they become vectors."""
        from torchvision.ops import roi_align

        high, wide = level.shape[2:]
        cells = boxes * boxes.new_tensor([wide, high, wide, high])
        cut = roi_align(level, torch.cat([owner[:, None].to(cells), cells], 1), self.sizes.side, aligned=True)
        hidden: Tensor = self.hidden(self.box(cut).flatten(1)).relu()
        return hidden

    def read(
        self, levels: tuple[Tensor, ...], boxes: Float[Tensor, "n 4"], owner: Int[Tensor, " n"]
    ) -> Float[Tensor, "n _hidden"]:
        """The same, with each box read from the level that fits its size."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
        which = torch.bucketize(side, side.new_tensor(LARGE), right=True)
        found = boxes.new_zeros(len(boxes), self.sizes.hidden)
        for i, level in enumerate(levels):
            own = (which == i).nonzero()[:, 0]
            if len(own):
                found = found.index_copy(0, own, self.on_level(level, boxes[own], owner[own]))
        return found
