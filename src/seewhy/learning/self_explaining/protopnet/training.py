"""Training of ProtoPNet's layers on kept feature maps: prototypes, push, last layer, pruning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ....progress import Progress
from ....training.batches import Batch, TrainingData
from ....training.loop import Training, train
from ....training.task import Task
from .network import PrototypeLayer, Pushed, similarity


@dataclass(frozen=True)
class Maps:
    """What is trained on.

    Attributes:
        grids: feature maps, in half precision; the first ``n`` are the pictures themselves.
        labels: class of each.
        n: pictures; what follows are crops of them, which are trained on but never become prototypes.
    """

    grids: Float[Tensor, "m c h w"]
    labels: Int[Tensor, " m"]
    n: int

    def parts(self, size: int = 256) -> Iterator[tuple[int, Float[Tensor, "b c h w"]]]:
        """The pictures themselves, a few at a time, with the position of the first."""
        for start in range(0, self.n, size):
            yield start, self.grids[start : min(start + size, self.n)].float()


def first_weight(owner: Int[Tensor, " p"], n_classes: int) -> Float[Tensor, "k p"]:
    """1 for the own class, -0.5 for the others (paper, section 2.2)."""
    own = owner == torch.arange(n_classes)[:, None]
    return torch.where(own, 1.0, -0.5)


def terms(
    distances: Float[Tensor, "b p"], labels: Int[Tensor, " b"], owner: Int[Tensor, " p"], weight: Float[Tensor, "k p"]
) -> dict[str, Tensor]:
    """The terms of the loss (paper, equations 2 and 3; the ℓ1 term of section 2.2).

    ``cluster``: mean over pictures of the smallest distance to a prototype of the own class; ``separation``: to one
    of another class; ``l1``: of the last layer's weights between a prototype and other classes.
    """
    own = owner == labels[:, None]
    far = torch.finfo(distances.dtype).max
    return {
        "ce": cross_entropy(similarity(distances) @ weight.T, labels),
        "cluster": distances.masked_fill(~own, far).amin(1).mean(),
        "separation": distances.masked_fill(own, far).amin(1).mean(),
        "l1": weight.masked_fill(owner == torch.arange(len(weight))[:, None], 0).abs().sum(),
    }


@dataclass(frozen=True)
class Weights:
    """Of the terms; the authors' 0.8, 0.08 and 1e-4."""

    cluster: float = 0.8
    separation: float = 0.08
    l1: float = 1e-4

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """``CE + 0.8 cluster - 0.08 separation + 1e-4 l1``."""
        pulled = self.cluster * parts["cluster"] - self.separation * parts["separation"]
        return parts["ce"] + pulled + self.l1 * parts["l1"]


GENTLE = 0.3
"""What the add-on layers' first weights are multiplied by, so that the sigmoid starts in its middle."""


@torch.no_grad()
def start_at_patches(layer: PrototypeLayer, owner: Int[Tensor, " p"], maps: Maps, seed: int) -> None:
    """Begin with smaller weights, and with each prototype on a patch of a picture of its class, drawn by chance.

    Not the authors': they begin anywhere in the cube, and their trunk comes to meet the prototypes.
    """
    for convolution in layer.add_on:
        if isinstance(convolution, nn.Conv2d):
            convolution.weight.mul_(GENTLE)
    drawn = torch.Generator().manual_seed(seed)
    for label in owner.unique().tolist():
        cells = layer.embed(maps.grids[: maps.n][maps.labels[: maps.n] == label].float()).permute(0, 2, 3, 1)
        mine = (owner == label).nonzero()[:, 0]
        cells = cells.flatten(0, 2)
        layer.prototypes[mine] = cells[torch.randint(len(cells), (len(mine),), generator=drawn)]


def train_prototypes(
    layer: PrototypeLayer,
    weight: Float[Tensor, "k p"],
    owner: Int[Tensor, " p"],
    maps: Maps,
    how: Training,
    weights: Weights,
    progress: Progress,
) -> None:
    """Move add-on layers and prototypes; the last layer stays."""
    task = _Scored(layer.requires_grad_(True), weight, owner, weights)
    train(task, TrainingData(len(maps.labels), {"maps": maps.grids, "labels": maps.labels}), how, progress=progress)


class _Scored(Task):
    """Layers between feature maps and distances to prototypes, and the last layer: what of them is free learns."""

    needs: ClassVar[tuple[str, ...]] = ("maps", "labels")

    def __init__(self, layer: nn.Module, weight: Tensor, owner: Int[Tensor, " p"], weights: Weights) -> None:
        super().__init__()
        self.layer, self.weights = layer, weights
        free = isinstance(weight, nn.Parameter)
        self.weight = weight if free else nn.Buffer(weight, persistent=False)
        self.owner = nn.Buffer(owner, persistent=False)

    def features(self, batch: Batch) -> Float[Tensor, "b p"]:
        distances: Tensor = self.layer(batch["maps"].float())
        return distances

    def loss(self, features: Float[Tensor, "b p"], batch: Batch) -> Mapping[str, Tensor]:
        parts = terms(features, batch["labels"], self.owner, self.weight)
        return {"loss": self.weights.total(parts), **parts}


@torch.no_grad()
def push(layer: PrototypeLayer, owner: Int[Tensor, " p"], maps: Maps) -> tuple[Pushed, ...]:
    """Each prototype becomes the nearest patch of a picture of its own class; no patch is taken twice.

    A class's prototypes choose in turn, nearest first; the authors let several take one patch, so that a class may
    end with copies. Where a class has fewer patches than prototypes the last ones share.
    """
    chosen: list[Pushed] = [Pushed(0, (0, 0))] * len(owner)
    for label in owner.unique().tolist():
        pictures = (maps.labels[: maps.n] == label).nonzero()[:, 0]
        mine = (owner == label).nonzero()[:, 0]
        grids = maps.grids[pictures].float()
        distances = layer.distances(grids)[:, mine].transpose(0, 1).flatten(1)
        height, width = grids.shape[2:]
        cells = layer.embed(grids).permute(0, 2, 3, 1).flatten(0, 2)
        for row, cell in _in_turn(distances):
            picture, place = divmod(cell, height * width)
            chosen[int(mine[row])] = Pushed(int(pictures[picture]), divmod(place, width))
            layer.prototypes[mine[row]] = cells[cell]
    return tuple(chosen)


def _in_turn(distances: Float[Tensor, "p q"]) -> Iterator[tuple[int, int]]:
    """Prototypes with their patches: the closest pair first, each patch once while there are enough."""
    left = distances.clone()
    for n in range(len(left)):
        if n % left.shape[1] == 0:  # every patch is taken: all are free again
            free = torch.zeros(left.shape[1])
        row, cell = divmod(int((left + free).argmin()), left.shape[1])
        yield row, cell
        left[row] = torch.inf
        free[cell] = torch.finfo(torch.float32).max


@torch.no_grad()
def smallest_distances(layer: PrototypeLayer, maps: Maps) -> Float[Tensor, "n p"]:
    """Of every picture to every prototype."""
    return torch.cat([layer(grids) for _, grids in maps.parts()])


def train_last(
    weight: Float[Tensor, "k p"],
    owner: Int[Tensor, " p"],
    distances: Float[Tensor, "m p"],
    labels: Int[Tensor, " m"],
    how: Training,
    l1: float,
    progress: Progress,
) -> Float[Tensor, "k p"]:
    """The last layer alone, on distances that no longer change."""
    task = _Scored(nn.Identity(), nn.Parameter(weight.clone()), owner, Weights(0.0, 0.0, l1))
    train(task, TrainingData(len(labels), {"maps": distances, "labels": labels}), how, progress=progress)
    return task.weight.detach()


def kept(
    distances: Float[Tensor, "n p"], labels: Int[Tensor, " n"], owner: Int[Tensor, " p"], k: int, threshold: int
) -> Bool[Tensor, " p"]:
    """Prototypes of whose ``k`` nearest pictures at least ``threshold`` are of their class (paper, supplement S8).

    Every class keeps at least its best one, which the authors do not see to: a class without any could not be told.
    """
    nearest = distances.topk(min(k, len(labels)), 0, largest=False).indices
    votes = (labels[nearest] == owner).sum(0)
    keep = votes >= threshold
    for label in owner.unique():
        mine = owner == label
        if not keep[mine].any():
            keep[mine.nonzero()[votes[mine].argmax(), 0]] = True
    return keep
