"""Semiotics networks (Kupeev & Nitzany 2023, arXiv 2310.05212): pictures are seen first, then classified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ....bounds import Count, Positive
from ....classifiers import classifiers
from ....classifiers.base import Classifier, HeldOut
from ....classifiers.encoded_set import EncodedSet
from ....classifiers.fitting import Fitting, Outcome
from ....classifiers.network import Network
from ....encoders.base import Encoder, Layout
from ....encoders.split import freeze
from ....heads.head import Head
from ....heads.normalise import Normalise
from ....progress import Progress
from ....seeded import seeded
from ....training.batches import Batch, TrainingData
from ....training.loop import Training, train
from ....training.task import Supervised, Task
from ...network_recipe import NetworkRecipe
from .network import Form, Loop, PerceptualNetwork, Shape, grey


@classifiers.register
@dataclass(frozen=True)
class Perceptual(NetworkRecipe):
    """An autoencoder that has memorised the training pictures stands before a small classifier of grey pictures.

    A picture is observed and redrawn, what was drawn is observed again, and so on until it settles: that is what the
    classifier sees, in training as in use, and it can be looked at. ``"vanilla"`` redraws the picture itself;
    ``"stochastic"`` redraws copies of it, each disturbed less and less, and takes their mean. Experimental: nothing in
    the paper goes beyond digits of 28 × 28 pixels, the seen picture is near to a training picture, which it gives
    away, and the authors train for 100,000 epochs.

    Args:
        form: ``"stochastic"``, ``"vanilla"``, or ``"none"``, the plain classifier to compare with.
        side: of the grey pictures, in pixels; the authors' 28.
        memory: ``"dense"``, or ``"convolutional"`` as in the paper's experiments.
        width: of the autoencoder; the authors' 256 channels.
        depth: layers of a dense one; few layers reproduce the pictures but do not attract to them.
        memory_steps: of the autoencoder's training, on all pictures at once where there are at most 500.
        memory_lr: the authors' 1e-5.
        judge_epochs: of the classifier; the authors' 25 to 200.
        n_loops: times the seen picture is observed again; the authors' 30.
        n_copies: disturbed copies; the authors' 500.
    """

    name: ClassVar[str] = "perceptual"
    paper: ClassVar[str] = "Kupeev & Nitzany 2023, arXiv:2310.05212"
    needs: ClassVar[str] = "small pictures in classes"
    cost: ClassVar[str] = "n_loops × n_copies of its autoencoder"
    network: ClassVar[type[Network] | None] = PerceptualNetwork
    takes: ClassVar = ()
    small: ClassVar = {
        "form": "stochastic",
        "side": 32,
        "width": 8,
        "depth": 2,
        "memory_steps": 4,
        "judge_epochs": 2,
        "n_copies": 2,
        "n_loops": 2,
    }

    form: Form = "stochastic"
    side: Count = 28
    memory: Literal["dense", "convolutional"] = "dense"
    width: Count = 256
    depth: Count = 16
    memory_steps: Count = 2000
    memory_lr: Positive = 1e-3
    judge_epochs: Count = 100
    n_loops: int = 30
    n_copies: Count = 50

    def learn(self, fitting: Fitting) -> Outcome:
        shape, progress = Shape(self.side, self.memory, self.width, self.depth, 1), fitting.progress
        pictures = fitting.look(reader(shape))
        greys = torch.cat([seen.pooled for seen in pictures.encoded]).unflatten(1, (1, self.side, self.side))
        shape = replace(shape, n_classes=len(pictures.classes))
        loop = Loop(self.form, self.n_loops, self.n_copies, seed=self.seed)
        with seeded(self.seed):
            memory, judge = shape.make()
        own = ~pictures.held
        error = 0.0 if self.form == "none" else self._memorise(memory, greys[own], progress)
        with torch.no_grad():
            seen = loop.perceive(memory, greys)
        self._learn(judge, seen[own], pictures.labels[own], progress)
        names = tuple(s.image for s, keep in zip(pictures.items, own.tolist(), strict=True) if keep)
        network = PerceptualNetwork(
            fitting.encoder,
            shape,
            loop,
            _frozen(memory),
            _frozen(judge),
            greys[own].contiguous(),
            names,
            pictures.labels[own],
        )
        return Outcome(self._classifier(network, seen, pictures), pictures, {"reconstruction": round(error, 4)})

    def _memorise(self, memory: nn.Sequential, greys: Float[Tensor, "n 1 h w"], progress: Progress) -> float:
        """Mean distance of a picture to its redrawing, after training."""
        how = Training(
            self.memory_steps,
            min(len(greys), 500),
            lr=self.memory_lr,
            weight_decay=0,
            schedule="cosine",
            seed=self.seed,
        )
        train(Memorising(memory), TrainingData(len(greys), {"pixels": greys}), how, progress=progress)
        with torch.no_grad():
            return float(distance(memory(greys), greys))

    def _learn(
        self, judge: nn.Sequential, seen: Float[Tensor, "n 1 h w"], labels: Int[Tensor, " n"], progress: Progress
    ) -> None:
        size = min(100, len(seen))
        steps = self.judge_epochs * max(1, len(seen) // size)
        how = Training(steps, size, lr=1e-3, weight_decay=0, schedule="constant", seed=self.seed)
        data = TrainingData(len(seen), {"pixels": seen, "labels": labels})
        train(Supervised(judge), data, how, progress=progress)

    def _classifier(
        self, network: PerceptualNetwork, seen: Float[Tensor, "n 1 h w"], pictures: EncodedSet
    ) -> Classifier:
        with torch.no_grad():
            logits = network.judge(seen)
        held = pictures.held
        known = (
            HeldOut(logits[held], pictures.labels[held], logits[held], pictures.groups[held]) if held.any() else None
        )
        head = Head(Normalise(), torch.eye(len(pictures.classes)))
        return self.classifier(network, pictures, head, known)


class Memorising(Task):
    """An autoencoder that learns to redraw pictures."""

    needs: ClassVar[tuple[str, ...]] = ("pixels",)

    def __init__(self, memory: nn.Module) -> None:
        super().__init__()
        self.memory = memory.requires_grad_(True)

    def features(self, batch: Batch) -> Float[Tensor, "b 1 h w"]:
        redrawn: Tensor = self.memory(batch["pixels"])
        return redrawn

    def loss(self, features: Float[Tensor, "b 1 h w"], batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": distance(features, batch["pixels"])}


def distance(a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean Frobenius norm of the difference."""
    return (a - b).flatten(1).norm(dim=1).mean()


class _Grey(nn.Module):
    """Colour pixels → grey ones."""

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        return grey(pixels)


def reader(shape: Shape) -> Encoder:
    """An encoder that only reads: its pooled vector is the grey picture itself."""
    trunk = freeze(_Grey())
    return Encoder(
        name=f"grey pictures of {shape.side} px",
        transform=shape.transform,
        trunk=lambda: trunk,
        head=nn.Flatten(),
        layout=Layout(),
        fingerprint=f"grey{shape.side}",
        engine="torch",
    )


def _frozen(module: nn.Sequential) -> nn.Sequential:
    freeze(module)
    return module
