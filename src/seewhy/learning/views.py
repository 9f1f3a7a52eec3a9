"""Views of pictures that learn from one another: as vectors, or cell by cell, beside a slow copy of the network."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..encoders.base import Encoder, GlobalAverage, Layout
from ..encoders.split import example_pixels
from ..seeded import seeded
from ..training.batches import Batch
from ..training.distributed import gathered
from ..training.task import Task
from .contrast import hold_norms
from .encoders.projection import Projection
from .encoders.pyramid import Pyramid
from .encoders.towers import TunedPictures
from .objectives.pictures import Dense, Vectors


class Slow(nn.Module):
    """An exponential moving average of a network's weights: a task's buffers, so that a checkpoint holds it.

    ``slow = m slow + (1 - m) network`` after each step, with ``m = 1 - (1 - momentum) (cos(pi t / n_steps) + 1) / 2``
    at step ``t`` (BYOL, Grill et al. 2020, arXiv 2006.07733, section 3.3). Buffers of the network are taken over.
    """

    step: Tensor

    def __init__(self, network: nn.Module, momentum: float, n_steps: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.momentum, self.n_steps = momentum, n_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        for module in self.network.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    del module._parameters[name]
                    module.register_buffer(name, value.detach().clone())

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    @property
    def rate(self) -> float:
        """``m`` of the next step."""
        share = min(int(self.step) / self.n_steps, 1.0)
        return 1 - (1 - self.momentum) * (math.cos(math.pi * share) + 1) / 2

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """One step towards the network; called once its weights have moved."""
        own = dict(self.network.named_buffers())
        weights = dict(network.named_parameters())
        torch._foreach_lerp_([own[name] for name in weights], [p.detach() for p in weights.values()], 1 - self.rate)
        for name, value in network.named_buffers():
            own[name].copy_(value)
        self.step += 1


class Views(Task):
    """Each view of a picture becomes one vector; over several processes those of all are compared.

    Watched is the spread of directions: 0 where all are the same, as in a training that has collapsed.
    """

    def __init__(
        self,
        tower: nn.Module,
        projection: nn.Module,
        objective: Vectors,
        *,
        width: int,
        n_classes: int,
        n_pictures: int,
        n_steps: int,
        hold: bool = True,
    ) -> None:
        super().__init__()
        self.needs = ("views", *(("labels",) if n_classes else ()))  # type: ignore[misc]
        self.network = nn.Sequential(tower, projection).requires_grad_(True)
        self.objective, self.hold = objective, hold
        self.beside = objective.state(width, n_classes, n_pictures, n_steps)
        self.slow = Slow(self.network, objective.momentum, n_steps) if objective.slow_views else None

    def features(self, batch: Batch) -> dict[str, Float[Tensor, "b v d"]]:
        if self.hold:
            hold_norms(self)
        views = batch["views"][: self.objective.n_views]
        found = {"vectors": _vectors(self.network, views)}
        if self.slow is not None:
            found["slow"] = _vectors(self.slow, views[-self.objective.slow_views :])
        found["index"] = torch.tensor(batch.index, device=views[0].device)
        return found

    def loss(self, features: dict[str, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        slow = gathered(features["slow"])[0] if "slow" in features else None
        labels = gathered(batch["labels"])[0] if "labels" in self.needs else None
        vectors, index = gathered(features["vectors"])[0], gathered(features["index"])[0]
        loss = self.objective(vectors, labels, state=self.beside, slow=slow, index=index)
        directions = normalize(vectors.detach().float(), dim=2).flatten(0, 1)
        return {"loss": loss, "spread": directions.var(0, unbiased=False).sum(), **self.beside.watched}

    def after_step(self) -> None:
        self.beside.after_step()
        if self.slow is not None:
            self.slow.follow(self.network)


def _vectors(network: nn.Module, views: tuple[Tensor, ...]) -> Float[Tensor, "b v d"]:
    """All views at once."""
    vectors: Tensor = network(views[0] if len(views) == 1 else torch.cat(views))
    return vectors.unflatten(0, (len(views), -1)).transpose(0, 1)


class OneMap(nn.Module):
    """A trunk's own map, as the only level."""

    def __init__(self, trunk: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.trunk, self.layout = trunk, layout

    def levels(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c gh gw"], ...]:
        """It."""
        return (self.layout.to_grid(self.trunk(pixels)),)


class Cells(nn.Module):
    """A head ``(n, c)`` → ``(n, d)`` on every cell of a map."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        rows: Tensor = self.head(cells.movedim(1, 3).flatten(0, 2))
        return rows.unflatten(0, (len(cells), *cells.shape[2:])).movedim(3, 1)


class Branch(nn.Module):
    """Pixels → projected cells of each level, and a projected map of the coarsest for the whole where there is one."""

    def __init__(self, maps: nn.Module, cells: nn.Module, whole: nn.Module | None) -> None:
        super().__init__()
        self.maps, self.cells, self.whole = maps, cells, whole

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> dict[str, Any]:
        levels = self.maps.levels(pixels)  # type: ignore[operator]
        whole = {} if self.whole is None else {"whole": self.whole(levels[-1])}
        return {"cells": tuple(self.cells(level) for level in levels), **whole}


class DenseViews(Task):
    """Views look for one another's cells: each learns from the slow copy's look at the other.

    Levels share heads and count alike. Batch normalisations of the trunk stay as in evaluation; those of the heads take
    the statistics of each view, without which small batches may collapse.
    """

    needs = ("views", "boxes", "flipped")

    def __init__(self, maps: nn.Module, head: Projection, objective: Dense, *, n_in: int, n_steps: int) -> None:
        super().__init__()
        self.objective, self.whole = objective, objective.instance_weight > 0
        width = head.out_width(n_in)
        cells, whole = Cells(head.build(n_in)), Cells(head.build(n_in)) if self.whole else None
        self.branch = Branch(maps, cells, whole).requires_grad_(True)
        self.slow = Slow(self.branch, objective.momentum, n_steps)
        self.predictor = Cells(head.build(width)) if self.whole else None
        self.beside = objective.state(width)

    def features(self, batch: Batch) -> tuple[dict[str, Any], ...]:
        for part in ("branch.maps.trunk", "slow.network.maps.trunk"):
            hold_norms(self.get_submodule(part))
        found = []
        for view in batch["views"][:2]:
            own = self.branch(view)
            if self.predictor is not None:
                own = {**own, "whole": self.predictor(own["whole"])}
            found.append({"own": own, "slow": self.slow(view)})
        return tuple(found)

    def loss(self, features: tuple[dict[str, Any], ...], batch: Batch) -> Mapping[str, Tensor]:
        boxes, flipped, (first, second) = batch["boxes"][:2], batch["flipped"][:2], features
        cells = self._cells(first, second, boxes, flipped) + self._cells(second, first, boxes.flip(0), flipped.flip(0))
        loss, watched = self.objective.cell_weight * cells, {"cells": cells.detach()}
        if self.whole:
            whole = self._whole(first, second) + self._whole(second, first)
            loss, watched["whole"] = loss + self.objective.instance_weight * whole, whole.detach()
        return {"loss": loss, **watched, "spread": spread(first["own"]["cells"][0])}

    def _cells(self, one: dict[str, Any], other: dict[str, Any], boxes: Tensor, flipped: Tensor) -> Tensor:
        levels = zip(one["own"]["cells"], other["slow"]["cells"], strict=True)
        return torch.stack([self.objective(x, y, boxes, flipped, self.beside) for x, y in levels]).mean()

    def _whole(self, one: dict[str, Any], other: dict[str, Any]) -> Tensor:
        return self.objective.whole(one["own"]["whole"].mean((2, 3)), other["slow"]["whole"].mean((2, 3)))

    def after_step(self) -> None:
        self.slow.follow(self.branch)


def dense_views(
    on: Encoder, objective: Dense, head: Projection, pyramid: bool, *, n_steps: int, seed: int
) -> tuple[TunedPictures, DenseViews]:
    """A copy of an encoder's picture half, with a pyramid on it where asked, and the task that trains its cells."""
    with seeded(seed):
        if pyramid:
            maps = Pyramid.on(on)
            task = DenseViews(maps, head, objective, n_in=maps.width, n_steps=n_steps)
            return TunedPictures(maps, GlobalAverage()), task
        tower = TunedPictures.before(on)
        with torch.no_grad():
            own = on.layout.to_grid(tower.trunk(example_pixels(on.transform.input_size)))
        return tower, DenseViews(OneMap(tower.trunk, on.layout), head, objective, n_in=own.shape[1], n_steps=n_steps)


@torch.no_grad()
def spread(cells: Float[Tensor, "b d h w"]) -> Float[Tensor, ""]:
    """Of the cells' directions: the sum of their coordinates' variances, 1 less the square of their mean's length.

    >>> round(float(spread(torch.ones(2, 4, 3, 3))), 4), round(float(spread(torch.eye(4)[:, :, None, None])), 4)
    (0.0, 0.75)
    """
    return normalize(cells.float(), dim=1).movedim(1, 3).flatten(0, 2).var(0, unbiased=False).sum()
