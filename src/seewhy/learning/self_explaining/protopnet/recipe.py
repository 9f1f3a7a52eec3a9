"""ProtoPNet, *this looks like that* (Chen et al. 2019, arXiv 1806.10574), on a frozen encoder."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ....bounds import Count, Natural, Positive
from ....classifiers import classifiers
from ....classifiers.base import Classifier
from ....classifiers.encoded_set import EncodedSet, HeldOut, with_logits
from ....classifiers.fitting import Fitting, Outcome
from ....classifiers.linear.jitter import random_crops
from ....classifiers.network import Network
from ....encoders.split import freeze
from ....encoders.stream import Encoded, EncodeRequest, encode_stream
from ....heads.head import Head
from ....heads.normalise import Normalise
from ....progress import Progress
from ....prototypes.bank import PatchBank
from ....seeded import seeded
from ....training.batches import Batch, TrainingData
from ....training.loop import Training, train
from ....training.task import Task
from ...network_recipe import NetworkRecipe
from .network import ProtoPNetNetwork, PrototypeLayer, Pushed, measure_prototypes, prototype_bank, similarity

GENTLE = 0.3
"""Factor on the initial weights of the add-on layers."""


@classifiers.register
@dataclass(frozen=True)
class ProtoPNet(NetworkRecipe):
    """Classifier with a few prototypes per class, each a patch of a training picture.

        logit_k = Σ_p W_kp log((d_p + 1) / (d_p + 1e-4))
        d_p     = min_patch |z - prototype_p|²

    ``d_p`` is the squared distance of prototype ``p`` from the nearest patch ``z``, and ``W`` are the weights of the
    last layer. This follows section 2.1 of the paper. Each training round has three steps:

    1. Train add-on layers and prototypes.
    2. Replace each prototype by the nearest training patch.
    3. Train the last layer.

    At the end, weak prototypes are pruned. Descriptions are not supported.

    Args:
        n_per_class: number of prototypes per class, at least 1 (authors: 10).
        depth: number of channels of a prototype (authors: 128).
        n_rounds: number of training rounds.
        n_steps: training steps per round (authors: 10 epochs of 2,250 steps, for 180,000 crops).
        last_steps: steps of the last layer per round (authors: 20 epochs).
        lr: learning rate of add-on layers and prototypes (authors: 3e-3).
        last_lr: learning rate of the last layer (authors: 1e-4).
        batch_size: pictures per step (authors: 80); lower it if memory runs out.
        cluster: weight of the cluster loss, at least 0 (authors: 0.8).
        separation: weight of the separation loss, at least 0 (authors: 0.08).
        l1: weight of the ℓ1 loss on the last layer's weights from prototypes to other classes, at least 0 (authors:
            1e-4).
        prune_k: number of nearest pictures that decide whether a prototype is pruned, at least 0 (authors: 6); 0 turns
            pruning off.
        prune_threshold: number of these pictures that must have the class of the prototype (authors: 3).
        n_crops: additional crops per picture (authors: 30).
        start: initial prototypes: ``"patches"`` of their class, with small weights of the add-on layers, or
            ``"random"`` (authors, who also train the trunk). On 72 grocery pictures of 12 classes and a frozen trunk,
            test accuracy is 64 % with ``"patches"`` and 21 % with ``"random"``.
    """

    name: ClassVar[str] = "protopnet"
    paper: ClassVar[str] = "Chen et al. 2019, arXiv:1806.10574"
    needs: ClassVar[str] = "labelled pictures"
    network: ClassVar[type[Network] | None] = ProtoPNetNetwork
    takes: ClassVar = ()
    small: ClassVar = {"n_per_class": 2, "depth": 4, "n_steps": 4, "last_steps": 2, "batch_size": 4, "n_crops": 1}

    n_per_class: Count = 10
    depth: Count = 128
    n_rounds: Count = 2
    n_steps: Count = 150
    last_steps: Natural = 200
    lr: Positive = 3e-3
    last_lr: Positive = 1e-4
    batch_size: Count = 80
    cluster: float = 0.8
    separation: float = 0.08
    l1: float = 1e-4
    prune_k: Natural = 6
    prune_threshold: int = 3
    n_crops: Natural = 1
    start: Literal["patches", "random"] = "patches"

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, progress = fitting.encoder, fitting.progress
        pictures = fitting.look(features=True)
        maps = self._maps(fitting, pictures)
        owner = torch.arange(len(pictures.classes)).repeat_interleave(self.n_per_class)
        with seeded(self.seed):
            layer = PrototypeLayer(maps.grids.shape[1], self.depth, len(owner), self.start == "patches")
        if self.start == "patches":
            start_at_patches(layer, owner, maps, self.seed)
        weight, rounds = first_weight(owner, len(pictures.classes)), []
        for number in range(self.n_rounds):
            self._move(layer, weight, owner, maps, number, progress)
            before = training_accuracy(smallest_distances(layer, maps), weight, maps.labels)
            pushed = push(layer, owner, maps)
            after = training_accuracy(smallest_distances(layer, maps), weight, maps.labels)
            weight = self._last(layer, weight, owner, maps, self.last_steps, progress)
            rounds.append({"before_push": before, "after_push": after})
        keep = torch.ones(len(owner), dtype=torch.bool)
        if self.prune_k:
            nearest = smallest_distances(layer, maps)
            keep = kept(nearest, maps.labels[: maps.n], owner, self.prune_k, self.prune_threshold)
        if not keep.all():
            progress.note(f"{int((~keep).sum())} of {len(keep)} prototypes were pruned")
            with torch.no_grad():
                layer.prototypes = nn.Parameter(layer.prototypes[keep])
            weight, owner = weight[:, keep], owner[keep]
            pushed = tuple(p for p, k in zip(pushed, keep.tolist(), strict=True) if k)
            weight = self._last(layer, weight, owner, maps, 5 * self.last_steps, progress)
        at = tuple(replace(p, picture=pictures.trained[p.picture]) for p in pushed)
        sources = [s.source for s in pictures.items]
        bank, places = prototype_bank(encoder, sources, pictures.labels.tolist(), at, fitting.store)
        freeze(layer)
        network = ProtoPNetNetwork(encoder, layer, owner, places)
        made = self._classifier(network, weight, pictures, bank)
        return Outcome(made, pictures, {"n_prototypes": len(network.owner), "rounds": rounds})

    def _maps(self, fitting: Fitting, pictures: EncodedSet) -> Maps:
        chosen, encoder = pictures.trained, fitting.encoder
        own, items = [pictures.encoded[i].features for i in chosen], [pictures.items[i] for i in chosen]
        names = [zlib.crc32(Path(s.image).name.encode("utf-8", "surrogateescape")) for s in items]
        crops = [(i, c) for i, name in enumerate(names) for c in random_crops(self.n_crops, self.seed, name)]
        request = EncodeRequest(features=lambda _index: True, views=lambda index: (crops[index][1] if crops else None,))
        stream = encode_stream(encoder, [items[i].source for i, _ in crops], store=fitting.store, request=request)
        looked = list(fitting.progress.track(stream, "Looking at crops", len(crops)))
        found = [(i, s.features) for (i, _), s in zip(crops, looked, strict=True) if isinstance(s, Encoded)]
        grids = [encoder.layout.to_grid(f[None])[0].half() for f in [*own, *(f for _, f in found)] if f is not None]
        index = torch.tensor([*range(len(own)), *(i for i, _ in found)])
        return Maps(torch.stack(grids), pictures.labels[torch.tensor(chosen)][index], len(own))

    def _move(
        self, layer: PrototypeLayer, weight: Tensor, owner: Tensor, maps: Maps, number: int, progress: Progress
    ) -> None:
        how = self._training(self.n_steps, self.lr * 0.1**number, number)
        task = _Scored(layer.requires_grad_(True), weight, owner, self)
        train(task, TrainingData(len(maps.labels), {"maps": maps.grids, "labels": maps.labels}), how, progress=progress)

    def _last(
        self, layer: PrototypeLayer, weight: Tensor, owner: Tensor, maps: Maps, n_steps: int, progress: Progress
    ) -> Float[Tensor, "k p"]:
        if n_steps == 0:
            return weight
        distances, labels = smallest_distances(layer, maps), maps.labels[: maps.n]
        task = _Scored(nn.Identity(), nn.Parameter(weight.clone()), owner, replace(self, cluster=0.0, separation=0.0))
        data = TrainingData(len(labels), {"maps": distances, "labels": labels})
        train(task, data, self._training(n_steps, self.last_lr, 0), progress=progress)
        return task.weight.detach()

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return ``CE + cluster · L_cluster - separation · L_separation + l1 · L_1``."""
        pulled = self.cluster * parts["cluster"] - self.separation * parts["separation"]
        return parts["ce"] + pulled + self.l1 * parts["l1"]

    def _training(self, n_steps: int, lr: float, number: int) -> Training:
        seed = self.seed * 100 + number
        return Training(n_steps, self.batch_size, lr=lr, weight_decay=0, schedule="constant", seed=seed)

    def _classifier(
        self, network: ProtoPNetNetwork, weight: Float[Tensor, "k p"], pictures: EncodedSet, bank: PatchBank
    ) -> Classifier:
        grown, held = network.encoder(), pictures.held.nonzero()[:, 0]
        head, measured = Head(Normalise(), weight), None
        if len(held):
            features = [f for i in held.tolist() if (f := pictures.encoded[i].features) is not None]
            with torch.no_grad():
                pooled = torch.cat([grown.head(f[None]) for f in features])
            measured = with_logits(head, HeldOut(pooled, pictures.labels[held], groups=pictures.groups[held]))
        likeness = None if measured is None else measure_prototypes(measured.pooled, measured.labels, network.owner)
        return self.classifier(network, pictures, head, measured, bank=bank, likeness=likeness)


def training_accuracy(
    distances: Float[Tensor, "n p"], weight: Float[Tensor, "k p"], labels: Int[Tensor, " m"]
) -> float:
    chosen = (similarity(distances) @ weight.T).argmax(1)
    return round(float((chosen == labels[: len(chosen)]).float().mean()), 4)


@dataclass(frozen=True)
class Maps:
    """Feature maps of ``n`` training pictures, followed by those of their crops."""

    grids: Float[Tensor, "m c h w"]
    labels: Int[Tensor, " m"]
    n: int


def first_weight(owner: Int[Tensor, " p"], n_classes: int) -> Float[Tensor, "k p"]:
    """Return the initial weights: 1 for the class of the prototype, -0.5 for other classes (paper, section 2.2)."""
    return torch.where(owner == torch.arange(n_classes)[:, None], 1.0, -0.5)


def terms(
    distances: Float[Tensor, "b p"], labels: Int[Tensor, " b"], owner: Int[Tensor, " p"], weight: Float[Tensor, "k p"]
) -> dict[str, Tensor]:
    """Return the terms of the loss (paper, equations 2 and 3, and the ℓ1 term of section 2.2)."""
    own = owner == labels[:, None]
    far = torch.finfo(distances.dtype).max
    return {
        "ce": cross_entropy(similarity(distances) @ weight.T, labels),
        "cluster": distances.masked_fill(~own, far).amin(1).mean(),
        "separation": distances.masked_fill(own, far).amin(1).mean(),
        "l1": weight.masked_fill(owner == torch.arange(len(weight))[:, None], 0).abs().sum(),
    }


@torch.no_grad()
def start_at_patches(layer: PrototypeLayer, owner: Int[Tensor, " p"], maps: Maps, seed: int) -> None:
    """Reduce the weights of the add-on layers and set each prototype to a random patch of its class."""
    for convolution in layer.add_on:
        if isinstance(convolution, nn.Conv2d):
            convolution.weight.mul_(GENTLE)
    drawn = torch.Generator().manual_seed(seed)
    for label in owner.unique().tolist():
        cells = layer.embed(maps.grids[: maps.n][maps.labels[: maps.n] == label].float()).permute(0, 2, 3, 1)
        mine, cells = (owner == label).nonzero()[:, 0], cells.flatten(0, 2)
        layer.prototypes[mine] = cells[torch.randint(len(cells), (len(mine),), generator=drawn)]


class _Scored(Task):
    """Training of the layers before the prototype distances, of the last layer, or of both."""

    needs = ("maps", "labels")

    def __init__(self, layer: nn.Module, weight: Tensor, owner: Int[Tensor, " p"], how: ProtoPNet) -> None:
        super().__init__()
        self.layer, self.how = layer, how
        free = isinstance(weight, nn.Parameter)
        self.weight = weight if free else nn.Buffer(weight, persistent=False)
        self.owner = nn.Buffer(owner, persistent=False)

    def features(self, batch: Batch) -> Float[Tensor, "b p"]:
        return self.layer(batch["maps"].float())

    def loss(self, features: Float[Tensor, "b p"], batch: Batch) -> Mapping[str, Tensor]:
        parts = terms(features, batch["labels"], self.owner, self.weight)
        return {"loss": self.how.total(parts), **parts}


@torch.no_grad()
def push(layer: PrototypeLayer, owner: Int[Tensor, " p"], maps: Maps) -> tuple[Pushed, ...]:
    """Replace each prototype by the nearest patch of its class; if possible, no patch is used twice."""
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
    """Yield (prototype, patch) index pairs, closest first, using each patch once where possible."""
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
    return torch.cat([layer(grids.float()) for grids in maps.grids[: maps.n].split(256)])


def kept(
    distances: Float[Tensor, "n p"], labels: Int[Tensor, " n"], owner: Int[Tensor, " p"], k: int, threshold: int
) -> Bool[Tensor, " p"]:
    """Return a mask of prototypes with at least ``threshold`` of the ``k`` nearest pictures in their class (paper, S8).

    A class without such prototypes keeps its best prototype.
    """
    nearest = distances.topk(min(k, len(labels)), 0, largest=False).indices
    votes = (labels[nearest] == owner).sum(0)
    keep = votes >= threshold
    for label in owner.unique():
        mine = owner == label
        if not keep[mine].any():
            keep[mine.nonzero()[votes[mine].argmax(), 0]] = True
    return keep
