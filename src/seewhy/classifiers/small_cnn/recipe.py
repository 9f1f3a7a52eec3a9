"""A small convolutional network trained from nothing: the classifier of CIFAKE (Bird & Lotfi 2023, 2303.14126)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...encoders.split import freeze
from ...errors import InputError
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...progress import Progress
from ...seeded import seeded
from ...training.batches import TrainingData
from ...training.loop import Training, train
from ...training.task import Supervised
from .. import classifiers
from ..base import Classifier, HeldOut
from ..encoded_set import MAX_HELD_OUT, EncodedSet, Split, evenly, with_logits
from ..fitting import Fitting, Outcome, PictureRecipe
from .network import SmallCNNNetwork, Topology, reader


@classifiers.register
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

    name = "small_cnn"
    paper = "Bird & Lotfi 2023, arXiv:2303.14126"
    needs = "small pictures in classes"
    cost = "1 of its own"
    stochastic = True
    network = SmallCNNNetwork
    takes = ("checkpoint",)
    small = {"n_filters": 4, "n_units": 8, "n_epochs": 2, "batch_size": 4}

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
                f"small_cnn was given n_epochs={self.n_epochs}, batch_size={self.batch_size}, lr={self.lr:g}. Numbers "
                "above zero were expected. Change them."
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
        return Outcome(made, pictures, figures, looked_by=reader(self.side), keep=False)

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
