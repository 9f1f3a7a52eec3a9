"""Two views of each picture whose cells learn from one another: a network, its slow copy, an objective of cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..encoders.base import Encoder, GlobalAverage, Layout
from ..encoders.projection import Projection
from ..encoders.pyramid import Pyramid
from ..encoders.split import example_pixels
from ..encoders.tuned_pictures import TunedPictures
from ..errors import InputError
from ..seeded import seeded
from ..training.batches import Batch
from ..training.task import Task
from .contrast import hold_norms
from .momentum import Slow
from .objectives.pictures import Dense, PictureObjective


class OneMap(nn.Module):
    """A trunk's own map, as the only level.

    Args:
        trunk: pixels → features.
        layout: how they are arranged.
    """

    def __init__(self, trunk: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.trunk, self.layout = trunk, layout

    def levels(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c gh gw"], ...]:
        """It."""
        return (self.layout.to_grid(self.trunk(pixels)),)


class Cells(nn.Module):
    """A head of vectors on every cell of a map.

    Args:
        head: ``(n, c)`` → ``(n, d)``.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        rows: Tensor = self.head(cells.movedim(1, 3).flatten(0, 2))
        return rows.unflatten(0, (len(cells), *cells.shape[2:])).movedim(3, 1)


class Branch(nn.Module):
    """Pixels → projected cells of each level, and a projected map of the coarsest for the whole where there is one.

    Args:
        maps: gives levels.
        cells: on cells that are compared.
        whole: on cells of which the mean is compared.
    """

    def __init__(self, maps: nn.Module, cells: nn.Module, whole: nn.Module | None) -> None:
        super().__init__()
        self.maps, self.cells, self.whole = maps, cells, whole

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> dict[str, Any]:
        levels = self.maps.levels(pixels)  # type: ignore[operator]
        whole = {} if self.whole is None else {"whole": self.whole(levels[-1])}
        return {"cells": tuple(self.cells(level) for level in levels), **whole}


class DenseViews(Task):
    """Views look for one another's cells: each learns from the slow copy's look at the other.

    Levels share heads and count alike. Watched are ``"cells"`` and ``"whole"``, and ``"spread"`` of the cells'
    directions: 1 where they point everywhere, 0 where all have become one. Batch normalisations of the trunk stay as in
    evaluation; those of the heads take the statistics of each view, without which small batches may collapse.

    Args:
        maps: gives levels of ``n_in`` channels: :class:`OneMap`, or :class:`~seewhy.encoders.pyramid.Pyramid`.
        head: by which cells are projected, and predicted.
        objective: of cells, and of whole views where they have a weight.
        n_in: channels of every level.
        n_steps: of the training, by which the slow copy's momentum rises.
    """

    needs = ("views", "boxes", "flipped")

    def __init__(
        self,
        maps: nn.Module,
        head: Projection,
        objective: Dense,
        *,
        n_in: int,
        n_steps: int,
    ) -> None:
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
        return tuple({"own": self._own(view), "slow": self.slow(view)} for view in batch["views"][:2])

    def _own(self, pixels: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = self.branch(pixels)
        return found if self.predictor is None else {**found, "whole": self.predictor(found["whole"])}

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


def check_cells(objective: PictureObjective, *, pyramid: bool, keep_head: bool) -> None:
    """See that what is asked for fits what is compared."""
    dense, name = isinstance(objective, Dense), objective.name
    if pyramid and not dense:
        raise InputError(
            f"pretrain was given pyramid=True with the objective {name!r}, which sees whole views. An objective of "
            "cells was expected. Leave the pyramid out, or take another objective."
        )
    if keep_head and dense:
        raise InputError(
            f"pretrain was given keep_head=True with the objective {name!r}, whose projection is of cells. An "
            "objective of whole views was expected. Leave keep_head out, or take another objective."
        )


def dense_views(
    on: Encoder, objective: Dense, head: Projection, pyramid: bool, *, n_steps: int, seed: int
) -> tuple[TunedPictures, DenseViews]:
    """A copy of an encoder's picture half, and the task that trains it by its cells."""
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

    Example:
        >>> round(float(spread(torch.ones(2, 4, 3, 3))), 4), round(float(spread(torch.eye(4)[:, :, None, None])), 4)
        (0.0, 0.75)
    """
    return normalize(cells.float(), dim=1).movedim(1, 3).flatten(0, 2).var(0, unbiased=False).sum()
