"""ProtoPNet, *this looks like that* (Chen et al. 2019, arXiv 1806.10574), on the frozen trunk of an encoder."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ....classifiers import classifiers
from ....classifiers.base import Classifier, HeldOut
from ....classifiers.encoded_set import EncodedSet, Split, with_logits
from ....classifiers.fitting import Fitting, Outcome, PictureRecipe
from ....classifiers.linear.jitter import random_crops
from ....classifiers.network import Network
from ....encoders.base import Encoder
from ....encoders.stream import Encoded, EncodeRequest, encode_stream
from ....errors import InputError
from ....heads.head import Head
from ....heads.normalise import Normalise
from ....progress import Progress
from ....prototypes.bank import PatchBank
from ....seeded import seeded
from ....storage.features import FeatureStore
from ....training.loop import Training
from .network import ProtoPNetNetwork, PrototypeLayer, Pushed, frozen, similarity
from .prototypes import measure_prototypes, prototype_bank
from .training import (
    Maps,
    Weights,
    first_weight,
    kept,
    push,
    smallest_distances,
    start_at_patches,
    train_last,
    train_prototypes,
)


@classifiers.register
@dataclass(frozen=True)
class ProtoPNet(PictureRecipe):
    """Each class has a few prototypes, which are patches of its training pictures; a picture is scored by its
    nearest patch to each.

    ``logit_k = Σ_p W_kp log((d_p + 1) / (d_p + 1e-4))`` with ``d_p = min_cell |z - prototype_p|²`` (paper, section
    2.1). Trained in rounds, as in the authors' code: add-on layers and prototypes; push, in which each prototype
    becomes a real patch; the last layer alone. In the end weak prototypes are pruned.

    Differences: the trunk stays frozen, so that training runs on kept feature maps and takes minutes on a CPU (the
    authors fine-tune it for days; accuracy is then a few points higher than here); crops are seen before training, not
    drawn anew in every epoch; where prototypes start (``start``); no patch is pushed to twice; weight decay is left
    out; each round has a tenth of the rate of the one before (theirs falls by ten every five epochs).

    What is pooled are similarities to prototypes, with which no sentence can be compared; so it takes no descriptions.

    Args:
        n_per_class: prototypes a class; the authors' 10.
        depth: channels of a prototype; the authors' 128.
        n_rounds: times prototypes are trained and pushed.
        n_steps: batches a round; the authors push every 10 epochs, of 2,250 batches for their 180,000 crops.
        last_steps: batches of the last layer after each push; the authors' 20 epochs.
        lr: of add-on layers and prototypes; the authors' 3e-3.
        last_lr: of the last layer; the authors' 1e-4.
        batch_size: pictures; the authors' 80.
        cluster: weight of the pull to own prototypes; the authors' 0.8.
        separation: weight of the push from others'; the authors' 0.08.
        l1: weight of the last layer's sparsity between classes; the authors' 1e-4.
        prune_k: nearest pictures asked whether a prototype is of its class; 0 prunes nothing; the authors' 6.
        prune_threshold: how many of them must be; the authors' 3.
        n_crops: crops a picture, seen beside itself; the authors' 30.
        start: ``"patches"``: prototypes begin on patches of their class, add-on layers with small weights and features
            of unit size; ``"random"``, as the authors', who train the trunk along. On a frozen trunk their start is
            right on 21 % of test pictures where this one is on 64 % (72 grocery pictures of 12 classes).
        held_out: part of the pictures on which it is measured.
        split: "grouped" keeps pictures of the same thing on one side; "random" does not, and flatters.
        seed: of the split, the crops and the first prototypes.
    """

    name: ClassVar[str] = "protopnet"
    paper: ClassVar[str] = "Chen et al. 2019, arXiv:1806.10574"
    needs: ClassVar[str] = "pictures in classes"
    stochastic: ClassVar[bool] = True
    network: ClassVar[type[Network] | None] = ProtoPNetNetwork
    takes: ClassVar = ()
    small: ClassVar = {"n_per_class": 2, "depth": 4, "n_steps": 4, "last_steps": 2, "batch_size": 4, "n_crops": 1}

    n_per_class: int = 10
    depth: int = 128
    n_rounds: int = 2
    n_steps: int = 150
    last_steps: int = 200
    lr: float = 3e-3
    last_lr: float = 1e-4
    batch_size: int = 80
    cluster: float = 0.8
    separation: float = 0.08
    l1: float = 1e-4
    prune_k: int = 6
    prune_threshold: int = 3
    n_crops: int = 1
    start: Literal["patches", "random"] = "patches"
    held_out: float = 0.2
    split: Split = "grouped"
    seed: int = 0

    def __post_init__(self) -> None:
        least = min(self.n_per_class, self.depth, self.n_rounds, self.n_steps, self.batch_size)
        if self.start not in ("patches", "random"):
            raise InputError(f"ProtoPNet was given start={self.start!r}. It is patches or random. Choose one of them.")
        if least < 1 or self.last_steps < 0 or self.n_crops < 0:
            raise InputError(
                f"ProtoPNet was given n_per_class={self.n_per_class}, depth={self.depth}, n_rounds={self.n_rounds}, "
                f"n_steps={self.n_steps}, batch_size={self.batch_size}. Numbers above zero were expected. Change them."
            )

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, store, progress = fitting.encoder, fitting.store, fitting.progress
        pictures = fitting.look(features=True)
        chosen = pictures.trained
        maps = self._maps(encoder, pictures, chosen, store, progress)
        owner = torch.arange(len(pictures.classes)).repeat_interleave(self.n_per_class)
        with seeded(self.seed):
            layer = PrototypeLayer(maps.grids.shape[1], self.depth, len(owner), self.start == "patches")
        if self.start == "patches":
            start_at_patches(layer, owner, maps, self.seed)
        weight, steps = first_weight(owner, len(pictures.classes)), []
        for number in range(self.n_rounds):
            weight, pushed, about = self._round(layer, weight, owner, maps, number, progress)
            steps.append(about)
        keep = self._prune(layer, maps, owner)
        if not keep.all():
            progress.note(f"{int((~keep).sum())} of {len(keep)} prototypes were pruned")
            with torch.no_grad():
                layer.prototypes = torch.nn.Parameter(layer.prototypes[keep])
            weight, owner = weight[:, keep], owner[keep]
            pushed = tuple(p for p, k in zip(pushed, keep.tolist(), strict=True) if k)
            weight = self._last(layer, weight, owner, maps, 5 * self.last_steps, progress)
        at = tuple(replace(p, picture=chosen[p.picture]) for p in pushed)
        sources = [s.source for s in pictures.items]
        bank, places = prototype_bank(encoder, sources, pictures.labels.tolist(), at, store)
        network = ProtoPNetNetwork(encoder, frozen(layer), owner, places)
        made = self._classifier(network, weight, pictures, bank)
        return Outcome(made, pictures, {"n_prototypes": len(network.owner), "rounds": steps})

    def _maps(
        self,
        encoder: Encoder,
        pictures: EncodedSet,
        chosen: Sequence[int],
        store: FeatureStore | None,
        progress: Progress,
    ) -> Maps:
        """Feature maps of the training pictures, then of their crops."""
        own = [pictures.encoded[i].features for i in chosen]
        items = [pictures.items[i] for i in chosen]
        names = [zlib.crc32(Path(s.image).name.encode("utf-8", "surrogateescape")) for s in items]
        crops = [(i, c) for i, name in enumerate(names) for c in random_crops(self.n_crops, self.seed, name)]
        request = EncodeRequest(features=lambda _index: True, views=lambda index: (crops[index][1] if crops else None,))
        stream = encode_stream(encoder, [items[i].source for i, _ in crops], store=store, request=request)
        looked = list(progress.track(stream, "Looking at crops", len(crops)))
        found = [(i, s.features) for (i, _), s in zip(crops, looked, strict=True) if isinstance(s, Encoded)]
        grids = [encoder.layout.to_grid(f[None])[0].half() for f in [*own, *(f for _, f in found)] if f is not None]
        index = torch.tensor([*range(len(own)), *(i for i, _ in found)])
        return Maps(torch.stack(grids), pictures.labels[torch.tensor(chosen)][index], len(own))

    def _round(
        self,
        layer: PrototypeLayer,
        weight: Float[Tensor, "k p"],
        owner: Int[Tensor, " p"],
        maps: Maps,
        number: int,
        progress: Progress,
    ) -> tuple[Float[Tensor, "k p"], tuple[Pushed, ...], dict[str, float]]:
        """Train, push, fit the last layer; what the push cost is measured."""
        how = self._training(self.n_steps, self.lr * 0.1**number, number)
        train_prototypes(layer, weight, owner, maps, how, self._weights, progress)
        before = training_accuracy(smallest_distances(layer, maps), weight, maps.labels)
        pushed = push(layer, owner, maps)
        after = training_accuracy(smallest_distances(layer, maps), weight, maps.labels)
        weight = self._last(layer, weight, owner, maps, self.last_steps, progress)
        return weight, pushed, {"before_push": before, "after_push": after}

    def _last(
        self,
        layer: PrototypeLayer,
        weight: Float[Tensor, "k p"],
        owner: Int[Tensor, " p"],
        maps: Maps,
        n_steps: int,
        progress: Progress,
    ) -> Float[Tensor, "k p"]:
        if n_steps == 0:
            return weight
        distances, labels = smallest_distances(layer, maps), maps.labels[: maps.n]
        how = self._training(n_steps, self.last_lr, 0)
        return train_last(weight, owner, distances, labels, how, self.l1, progress)

    def _training(self, n_steps: int, lr: float, number: int) -> Training:
        seed = self.seed * 100 + number
        return Training(n_steps, self.batch_size, lr=lr, weight_decay=0, schedule="constant", seed=seed)

    @property
    def _weights(self) -> Weights:
        return Weights(self.cluster, self.separation, self.l1)

    def _prune(self, layer: PrototypeLayer, maps: Maps, owner: Int[Tensor, " p"]) -> Tensor:
        if self.prune_k == 0:
            return torch.ones(len(owner), dtype=torch.bool)
        distances = smallest_distances(layer, maps)
        return kept(distances, maps.labels[: maps.n], owner, self.prune_k, self.prune_threshold)

    def _classifier(
        self,
        network: ProtoPNetNetwork,
        weight: Float[Tensor, "k p"],
        pictures: EncodedSet,
        bank: PatchBank,
    ) -> Classifier:
        grown = network.encoder()
        held = pictures.held.nonzero()[:, 0].tolist()
        measured = None
        if held:
            features = [f for i in held if (f := pictures.encoded[i].features) is not None]
            with torch.no_grad():
                pooled = torch.cat([grown.head(f[None]) for f in features])
            index = torch.tensor(held)
            measured = HeldOut(pooled, pictures.labels[index], groups=pictures.groups[index])
        head = Head(Normalise(), weight)
        measured = with_logits(head, measured)
        likeness = None if measured is None else measure_prototypes(measured.pooled, measured.labels, network.owner)
        n = int((~pictures.held).sum())
        return Classifier(
            self.name,
            self.parameters(),
            grown,
            pictures.classes,
            head,
            bank=bank,
            likeness=likeness,
            held_out=measured,
            trained_on=f"{n:,} of your pictures, {len(pictures.classes)} classes",
            network=network,
        )


def training_accuracy(
    distances: Float[Tensor, "n p"], weight: Float[Tensor, "k p"], labels: Int[Tensor, " m"]
) -> float:
    """On the pictures themselves, without their crops."""
    chosen = (similarity(distances) @ weight.T).argmax(1)
    return round(float((chosen == labels[: len(chosen)]).float().mean()), 4)
