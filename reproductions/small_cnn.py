"""A small convolutional network for small pictures, trained from nothing: CIFAKE's (Bird & Lotfi 2023, 2303.14126).

A saved one can be loaded again after ``seewhy.classifiers.classifiers.register(SmallCNN)``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.classifiers.base import Classifier, HeldOut
from seewhy.classifiers.encoded_set import MAX_HELD_OUT, EncodedSet, Split, evenly, with_logits
from seewhy.classifiers.fitting import Fitting, Outcome, PictureRecipe
from seewhy.classifiers.network import Network
from seewhy.encoders.base import Encoder, Layout
from seewhy.encoders.split import freeze, weights_digest
from seewhy.errors import InputError
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.progress import Progress
from seewhy.seeded import seeded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised
from seewhy.types import Transform

SIDES = range(8, 257)
"""That pictures may have."""
MOST_WEIGHTS = 200_000_000
"""More than this is no small network."""


@dataclass(frozen=True)
class Topology:
    """What is varied.

    Attributes:
        n_convs: 3 × 3 convolutions.
        n_filters: of each.
        n_dense: layers between the last map and the classes.
        n_units: of each.

    Example:
        >>> str(Topology(2, 32, 1, 64)), Topology(2, 32, 1, 64).n_weights(32, 2)
        ('2 x 32 filters, 1 x 64 units', 141410)
    """

    n_convs: int = 2
    n_filters: int = 32
    n_dense: int = 1
    n_units: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.n_convs <= 5 or self.n_filters < 1 or self.n_dense < 0 or self.n_units < 1:
            raise InputError(
                f"A small CNN was given n_convs={self.n_convs}, n_filters={self.n_filters}, n_dense={self.n_dense}, "
                f"n_units={self.n_units}. Expected 1 to 5 convolutions, 0 or more dense layers, and numbers above "
                "zero. Change them."
            )

    def __str__(self) -> str:
        dense = f", {self.n_dense} x {self.n_units} units" if self.n_dense else ""
        return f"{self.n_convs} x {self.n_filters} filters{dense}"

    def check(self, side: int) -> None:
        """See that pictures of this side can be halved so often."""
        if side not in SIDES or side >> self.n_convs < 1:
            raise InputError(
                f"A small CNN of {self.n_convs} convolutions was given side={side}. Expected {SIDES[0]} to {SIDES[-1]} "
                "pixels that can be halved once for each. Change the side."
            )
        if self.n_weights(side, 2) > MOST_WEIGHTS:
            raise InputError(
                f"A small CNN of {self} on pictures of {side} pixels has {self.n_weights(side, 2):,} weights. Expected "
                f"at most {MOST_WEIGHTS:,}. Use fewer units or a smaller side."
            )

    def widths(self, side: int) -> list[int]:
        """Of what the dense layers read, and of each of them."""
        return [self.n_filters * (side >> self.n_convs) ** 2, *[self.n_units] * self.n_dense]

    def n_weights(self, side: int, n_classes: int) -> int:
        """With biases."""
        channels = [3, *[self.n_filters] * self.n_convs]
        widths = [*self.widths(side), n_classes]
        maps = sum(9 * a * b + b for a, b in pairwise(channels))
        return maps + sum(a * b + b for a, b in pairwise(widths))

    def make(self, side: int, *, standardise: bool) -> tuple[nn.Sequential, nn.Sequential]:
        """Pixels → the last convolution's map, and that map → what the last layer reads; torch's random numbers."""
        trunk: list[nn.Module] = [Standardise()] if standardise else []
        channels = [3, *[self.n_filters] * self.n_convs]
        for i, (a, b) in enumerate(pairwise(channels)):
            trunk += [nn.MaxPool2d(2)] * (i > 0) + [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        head: list[nn.Module] = [nn.MaxPool2d(2), nn.Flatten()]
        widths = self.widths(side)
        for a, b in pairwise(widths):
            head += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*trunk), nn.Sequential(*head)


class Standardise(nn.Module):
    """Each picture less its own mean colour, by its own spread: a colour cast tells nothing any more."""

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        rest = pixels - pixels.mean((2, 3), keepdim=True)
        return rest / rest.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def transform_of(side: int) -> Transform:
    """Numbers of 0 to 1; pictures of another size are stretched, which hides what a generator left."""
    return Transform((side, side), (side, side), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def reader(side: int) -> Encoder:
    """Reads pictures and computes next to nothing: features are the pixels, pooled are 4 × 4 colours."""
    trunk, pool = nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return Encoder(
        name=f"pictures of {side} px",
        transform=transform_of(side),
        trunk=lambda: freeze(trunk),
        head=freeze(pool),
        layout=Layout(),
        fingerprint=f"pixels{side}",
        engine="torch",
    )


@dataclass(frozen=True, eq=False)
class SmallCNNNetwork(Network):
    """Trained convolutions and dense layers.

    Attributes:
        base: the encoder that the recipe was given, which is not looked through.
        topology: of the network.
        side: of the pictures.
        standardise: whether each picture is brought to mean 0 and spread 1 first.
        trunk: pixels → map, frozen.
        head: map → what the last layer reads, frozen.
    """

    where: ClassVar[str] = "grad_cam"

    topology: Topology
    side: int
    standardise: bool
    trunk: nn.Sequential = field(repr=False)
    head: nn.Sequential = field(repr=False)

    def encoder(self) -> Encoder:
        transform = transform_of(self.side)
        return Encoder(
            name=f"small CNN of {self.side} px",
            transform=transform,
            trunk=lambda: self.trunk,
            head=self.head,
            layout=Layout(),
            fingerprint=weights_digest(self.tensors(), f"{self.topology}{self.standardise}{transform.fingerprint}"),
            module=lambda: nn.Sequential(self.trunk, self.head),
            engine="torch",
        )

    def tensors(self) -> dict[str, Tensor]:
        parts = {"trunk": self.trunk, "head": self.head}
        return {f"{p}.{n}": t.detach() for p, module in parts.items() for n, t in module.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"topology": vars(self.topology), "side": self.side, "standardise": self.standardise}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        topology, side, standardise = Topology(**facts["topology"]), int(facts["side"]), bool(facts["standardise"])
        topology.check(side)
        with torch.device("meta"):
            parts = topology.make(side, standardise=standardise)
        for name, module in zip(("trunk", "head"), parts, strict=True):
            own = {n.removeprefix(f"{name}."): t for n, t in tensors.items() if n.startswith(f"{name}.")}
            expected = {n: t.shape for n, t in module.state_dict().items()}
            if {n: t.shape for n, t in own.items()} != expected:
                raise ValueError(f"the tensors of its {name} are not those of {topology}")
            module.load_state_dict(own, assign=True)
            freeze(module)
        return cls(base, topology, side, standardise, *parts)


@dataclass(frozen=True)
class SmallCNN(PictureRecipe):
    """Convolutions of 3 × 3 with ReLU, each halved by a maximum, then dense layers, trained on the pixels alone.

    ``logits = W d(… pool(relu(conv(pool(relu(conv(x)))))))`` by the cross entropy; of two classes this is the paper's
    sigmoid and binary cross entropy, with two outputs in place of one. No code was published; the defaults are the
    paper's best of 36 topologies. Optimiser, rate and batch are not in what could be read of it: Adam at 1e-3, 128.
    It sees pictures of ``side`` pixels and stretches all others, which takes away what a generator left in them: what
    it says of large photographs means nothing.

    Explanations are Grad-CAM on the last convolution before its maximum, 16 × 16 cells at 32 pixels.

    Args:
        n_convs: convolutions; the paper's 1 to 3.
        n_filters: of each; the paper's 16 to 128.
        n_dense: dense layers; the paper's 1 to 3.
        n_units: of each; the paper's 32 to 4096.
        side: of the pictures; the paper's 32.
        standardise: bring each picture to mean 0 and spread 1 first, so that colour casts tell nothing.
        n_epochs: times all pictures are shown.
        batch_size: pictures.
        lr: learning rate of Adam.
        held_out: part of the pictures that it is measured on; never trained on.
        split: "grouped" keeps pictures of the same thing on one side; "random" does not, and flatters.
        n_bank: pictures whose patches are kept as evidence.
        seed: of the split, the first weights and the order.
    """

    name: ClassVar[str] = "small_cnn"
    paper: ClassVar[str] = "Bird & Lotfi 2023, arXiv:2303.14126"
    needs: ClassVar[str] = "small pictures in classes"
    cost: ClassVar[str] = "1 of its own"
    stochastic: ClassVar[bool] = True
    network: ClassVar[type[Network] | None] = SmallCNNNetwork
    takes: ClassVar = ("checkpoint",)
    small: ClassVar = {"n_filters": 4, "n_units": 8, "n_epochs": 2, "batch_size": 4}

    n_convs: int = 2
    n_filters: int = 32
    n_dense: int = 1
    n_units: int = 64
    side: int = 32
    standardise: bool = False
    n_epochs: int = 20
    batch_size: int = 128
    lr: float = 1e-3
    held_out: float = 0.2
    split: Split = "grouped"
    n_bank: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        self.topology.check(self.side)
        if self.n_epochs < 1 or self.batch_size < 1 or self.lr <= 0:
            raise InputError(
                "`n_epochs` and `batch_size` must be at least 1 and `lr` greater than 0, got "
                f"n_epochs={self.n_epochs}, batch_size={self.batch_size} and lr={self.lr:g}."
            )

    @property
    def topology(self) -> Topology:
        return Topology(self.n_convs, self.n_filters, self.n_dense, self.n_units)

    def learn(self, fitting: Fitting) -> Outcome:
        pictures = fitting.look(reader(self.side), features=True, keep=False)
        pixels, own = pixels_of(pictures), ~pictures.held
        seal = json.dumps([self.parameters(), [pictures.encoded[i].digest for i in pictures.trained]])
        given = fitting.sealed(seal)
        trunk, head, last = self.train_on(
            pixels[own], pictures.labels[own], len(pictures.classes), fitting.progress, given
        )
        network = SmallCNNNetwork(fitting.encoder, self.topology, self.side, self.standardise, trunk, head)
        looks, decides = network.encoder(), Head(Normalise(), last.weight, last.bias)
        index = evenly(pictures.held, MAX_HELD_OUT)
        measured = None
        if len(index):
            pooled = torch.cat([looks.encode(part).pooled for part in pixels[index].split(256)])
            measured = with_logits(decides, HeldOut(pooled, pictures.labels[index], groups=pictures.groups[index]))
        n = int(own.sum())
        made = Classifier(
            self.name,
            self.parameters(),
            looks,
            pictures.classes,
            decides,
            held_out=measured,
            trained_on=f"{n:,} of your pictures, {len(pictures.classes)} classes, seen at {self.side} pixels",
            network=network,
        )
        figures = {"topology": str(self.topology), "n_weights": self.topology.n_weights(self.side, len(made.classes))}
        return Outcome(made, pictures, figures, keep=False)

    def train_on(
        self,
        pixels: Float[Tensor, "n 3 h w"],
        labels: Int[Tensor, " n"],
        n_classes: int,
        progress: Progress | None = None,
        checkpoint: tuple[Path, str] | None = None,
    ) -> tuple[nn.Sequential, nn.Sequential, nn.Linear]:
        """Trunk, dense layers and the last layer, trained on these pictures and frozen."""
        with seeded(self.seed):
            trunk, head = self.topology.make(self.side, standardise=self.standardise)
            last = nn.Linear(self.topology.widths(self.side)[-1], n_classes)
        size = min(self.batch_size, len(labels))
        steps = self.n_epochs * max(1, len(labels) // size)
        how = Training(steps, size, lr=self.lr, weight_decay=0, schedule="constant", seed=self.seed)
        task = Supervised(nn.Sequential(trunk, head, last))
        data = TrainingData(len(labels), {"pixels": pixels, "labels": labels})
        train(task, data, how, checkpoint=checkpoint, progress=progress)
        for part in (trunk, head, last):
            freeze(part)
        return trunk, head, last


def pixels_of(pictures: EncodedSet) -> Float[Tensor, "n 3 h w"]:
    """As :func:`.network.reader` saw them."""
    return torch.stack([seen.features for seen in pictures.encoded if seen.features is not None])
