"""What a probe of regions learns from: maps on the directions in which they differ, boxes on them, examples drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...pictures.boxes import BoxedPicture


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal components of an encoder's cells.

    Attributes:
        mean: of the cells.
        components: directions, over the spread along them.
    """

    mean: Float[Tensor, " c"]
    components: Float[Tensor, "m c"]

    @classmethod
    def of(cls, maps: list[Tensor], width: int) -> Axes:
        """Those of some maps."""
        cells = torch.cat([m.flatten(1).T for m in maps]).double()
        mean = cells.mean(0)
        centred = cells - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(cells))
        n = max(1, min(width, int((values > 1e-9 * values[-1]).sum())))
        spread = values[-n:].flip(0).clamp(min=1e-12).sqrt()
        return cls(mean.float(), (vectors[:, -n:].flip(1).T / spread[:, None]).float())

    def of_map(self, grid: Float[Tensor, "c h w"]) -> Float[Tensor, "m h w"]:
        return torch.einsum("mc,chw->mhw", self.components, grid - self.mean[:, None, None])


@dataclass(frozen=True, eq=False)
class Taught:
    """A picture to learn from: its map, and what is in it as parts of the picture."""

    grid: Float[Tensor, "m h w"]
    boxes: Float[Tensor, "g 4"]
    labels: Int[Tensor, " g"]
    ignored: Float[Tensor, "i 4"]

    @classmethod
    def of(cls, picture: BoxedPicture, grid: Float[Tensor, "m h w"], place: Mapping[str, int]) -> Taught:
        width, height = picture.size or (1, 1)
        scale = torch.tensor([width, height, width, height])
        real = [b for b in picture.boxes if not b.ignored and b.label in place]
        boxes = torch.tensor([b.box for b in real]).reshape(-1, 4) / scale
        ignored = torch.tensor([b.box for b in picture.boxes if b.ignored]).reshape(-1, 4) / scale
        return cls(grid.half(), boxes, torch.tensor([place[b.label] for b in real], dtype=torch.long), ignored)

    @property
    def cells(self) -> Float[Tensor, "g 4"]:
        """What is in it, in cells."""
        return self.boxes * corners_of(self.grid)


def corners_of(grid: Tensor) -> Float[Tensor, " 4"]:
    """Width, height, width, height in cells."""
    h, w = grid.shape[1:]
    return torch.tensor([w, h, w, h], dtype=torch.float32)


class Examples(NamedTuple):
    """Regions to learn from: features, class (the last is nothing), and what would bring each to its place."""

    x: Float[Tensor, "n d"]
    label: Int[Tensor, " n"]
    offsets: Float[Tensor, "n 4"]
