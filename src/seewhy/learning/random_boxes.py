"""Pictures with texts, and a detector's heads that learn from random boxes of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..encoders.base import Layout
from ..encoders.region_heads import RegionHeads
from ..training.batches import Batch
from ..training.task import Task
from .contrast import gathered_pairs, hold_norms, read_texts
from .objectives.contrastive import RandomBoxes


class BoxContrast(Task):
    """A trunk, and heads on it, that bring a picture and what is in its boxes to the picture's text.

    Watched are ``"whole"`` and ``"levels"``, the mean over levels.

    Args:
        image: pixels → features.
        pool: features → a vector among the texts.
        heads: on the features.
        text: what the batch has of the texts → ``(b, d)``.
        objective: what is made small.
        layout: how the features are arranged.
        hold: whether batch normalisations stay as in evaluation.
    """

    needs = ("pixels", "text")

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
        super().__init__()
        self.image, self.pool, self.heads, self.text = image, pool, heads, text
        self.objective, self.layout, self.hold, self.state = objective, layout, hold, objective.state()

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d"]]:
        """Of each picture the whole, then its levels; and of each text."""
        if self.hold:
            hold_norms(self)
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
        learnt = {name: p.detach().clone() for name, p in self.state.named_parameters()}
        total = whole + self.objective.level_weight * mean
        return {"loss": total, "whole": whole.detach(), "levels": mean.detach(), **learnt}

    def after_step(self) -> None:
        self.state.hold()


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
