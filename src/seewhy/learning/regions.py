"""Pictures with their regions or with random boxes, texts with their words, and objectives that compare both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from ..encoders.base import Layout
from ..encoders.region_heads import RegionHeads
from ..encoders.text_tokens import encode_tokens
from ..training.batches import Batch, gathered, sizes_of
from .contrast import PairTask, gathered_pairs
from .objectives.contrastive import RandomBoxes, Regional
from .pooled import read_texts


class RegionalContrast(PairTask):
    """Two networks that bring each picture and its text to one place, and what a text says to where it is seen.

    Watched are ``"whole"`` and ``"parts"``, which add up to the loss. Over several processes each compares the words of
    all texts with the regions of all pictures, where the objective does; that part of the work is not shared.
    """

    objective: Regional

    def __init__(
        self, image: nn.Module, text: nn.Module, objective: Regional, *, column: str = "pixels", hold: bool = False
    ) -> None:
        super().__init__(objective, column, "text", hold=hold)
        self.image, self.text, self.local = image, text, objective.local()

    def features(self, batch: Batch) -> tuple[Tensor, ...]:
        self.hold_norms()
        image, regions = self.image(batch[self.needs[0]])
        if self.objective.parts == "words":
            return image, regions, *read_texts(self.text, batch, 1)
        return image, regions, read_texts(lambda *said: self.text(*said)[0], batch, self.objective.n_texts)

    def loss(self, features: tuple[Tensor, ...], batch: Batch) -> Mapping[str, Tensor]:
        image, regions, text, *said = features
        whole = self.compared(image, text, batch)[0]
        words = said[0] if said else text.view(len(text), -1, text.shape[-1])
        filled = said[1] if said else words.new_ones(words.shape[:2]).bool()
        if self.local.across:
            regions, words, filled = _of_all(regions, words, filled)
        parts = self.objective.local_weight * self.local(regions, words, filled, self.state)
        return {"loss": whole + parts, "whole": whole.detach(), "parts": parts.detach(), **self.learnt()}


def _of_all(
    regions: Float[Tensor, "b r d"], words: Float[Tensor, "b t d"], said: Bool[Tensor, "b t"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of all processes; texts are made as long as the longest."""
    more = max(sizes_of(words.shape[1])) - words.shape[1]
    longer, filled = pad(words, (0, 0, 0, more)), pad(said.to(words), (0, more))
    return gathered(regions)[0], gathered(longer)[0], gathered(filled)[0] > 0.5


class ImageRegions(nn.Module):
    """An encoder's picture half → the picture and its cells among the texts, neither of unit length.

    Cells go through the projection that pooled vectors go through. Behind a mean over space the picture is the mean of
    its cells.
    """

    def __init__(self, trunk: nn.Module, pool: nn.Module, projection: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.trunk, self.pool, self.projection, self.layout = trunk, pool, projection, layout

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b r d"]]:
        features = self.trunk(pixels)
        cells = self.layout.to_grid(features).flatten(2).transpose(1, 2)
        return self.projection(self.pool(features)), self.projection(cells)


class Still(nn.Module):
    """A network in evaluation whatever the training says, with frozen weights unless it ``learns`` all the same."""

    def __init__(self, network: nn.Module, *, learns: bool = False) -> None:
        super().__init__()
        self.network = network.requires_grad_(learns).eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, *given: Tensor) -> Any:
        return self.network(*given)


class TextWords(nn.Module):
    """An encoder's words half, which can be read token by token → the text, its tokens among the pictures, and which
    of them are its own words."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tokens: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n t d"], Bool[Tensor, "n t"]]:
        network = self.network.network if isinstance(self.network, Still) else self.network
        read = encode_tokens(network, tokens)
        return read.pooled, read.vectors, read.words


class BoxContrast(PairTask):
    """A trunk, and a detector's heads on it, that bring a picture and what is in its boxes to the picture's text.

    Watched are ``"whole"`` and ``"levels"``, the mean over levels.
    """

    objective: RandomBoxes

    def __init__(
        self,
        image: nn.Module,
        pool: nn.Module,
        heads: RegionHeads,
        text: nn.Module,
        objective: RandomBoxes,
        *,
        layout: Layout,
        hold: bool = False,
    ) -> None:
        super().__init__(objective, "pixels", "text", hold=hold)
        self.image, self.pool, self.heads, self.text, self.layout = image, pool, heads, text, layout

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d"]]:
        """Of each picture the whole, then its levels; and of each text."""
        self.hold_norms()
        features = self.image(batch["pixels"])
        each = levels_of(self.heads, self.layout.to_grid(features), self.objective)
        return torch.cat([self.pool(features)[:, None], each], 1), read_texts(self.text, batch, 1)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text = features
        x, y, share = gathered_pairs(image.flatten(1), text)
        whole, *levels = (
            self.objective(one, y, None, self.state, share=share) for one in x.unflatten(1, image.shape[1:]).unbind(1)
        )
        mean = torch.stack(levels).mean()
        total = whole + self.objective.level_weight * mean
        return {"loss": total, "whole": whole.detach(), "levels": mean.detach(), **self.learnt()}


def levels_of(heads: RegionHeads, grid: Float[Tensor, "b c h w"], objective: RandomBoxes) -> Float[Tensor, "b l d"]:
    """Of each picture and level: the largest of each number over random boxes."""
    b, n = len(grid), objective.n_boxes
    boxes = random_boxes(b * n, objective.smallest).to(grid)
    owner = torch.arange(b, device=grid.device).repeat_interleave(n)
    made = [heads.embed(heads.on_level(level, boxes, owner)) for level in heads.levels(grid)]
    return torch.stack([one.unflatten(0, (b, n)).amax(1) for one in made], 1)


def random_boxes(n: int, smallest: float) -> Float[Tensor, "n 4"]:
    """Sides evenly from the smallest to the whole, anywhere that they fit; as parts of the picture."""
    sides = smallest + (1 - smallest) * torch.rand(n, 2)
    corner = (1 - sides) * torch.rand(n, 2)
    return torch.cat([corner, corner + sides], 1)
