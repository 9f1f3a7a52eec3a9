"""Semiotics networks (Kupeev & Nitzany 2023, arXiv 2310.05212), which classify the reconstruction of a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, islice, pairwise
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from ...bounds import Count, Positive
from ...classifiers import classifiers
from ...classifiers.base import HeldOut
from ...classifiers.fitting import Fitting, Outcome
from ...classifiers.network import Network, Perception
from ...encoders.base import Encoder, Layout
from ...encoders.split import freeze, weights_digest
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...progress import Progress
from ...seeded import seeded
from ...training.batches import Batch, TrainingData
from ...training.loop import Training, train
from ...training.task import Supervised, Task
from ...types import Transform
from ..encoders.delta import load_delta, state_delta
from ..network_recipe import NetworkRecipe

UNFELT = 1e-3
"""Strength below which disturbances are skipped."""

Form = Literal["vanilla", "stochastic", "none"]


class Cosid(nn.Module):
    """The authors' activation ``cos(x) - x``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cos() - x


def dense_memory(side: int, width: int, depth: int) -> nn.Sequential:
    """Return the authors' fully connected autoencoder."""
    inner = [layer for _ in range(depth - 1) for layer in (nn.Linear(width, width), Cosid())]
    first, last = nn.Linear(side * side, width), nn.Linear(width, side * side)
    return nn.Sequential(nn.Flatten(), first, Cosid(), *inner, last, nn.Unflatten(1, (1, side, side)))


def convolutional_memory(side: int, width: int, _depth: int) -> nn.Sequential:
    """Return the authors' convolutional autoencoder, with 3 × 3 convolutions of stride 2 (authors' width: 256)."""
    down: list[nn.Module] = []
    size, channels, n_levels = side, 1, 0
    while size > 1:
        size, n_levels = -(-size // 2), n_levels + 1
        down += [nn.Conv2d(channels, width, 3, 2, 1), Cosid()]
        channels = width
    up: list[nn.Module] = []
    for level in range(n_levels):
        scale = nn.Upsample(size=(side, side)) if level == n_levels - 1 else nn.Upsample(scale_factor=2)
        up += [nn.Conv2d(width, width, 3, 1, 1), Cosid(), scale]
    last = [nn.Conv2d(width, width, 3, 1, 1), Cosid(), nn.Conv2d(width, width, 3, 1, 1), Cosid()]
    return nn.Sequential(*down, *up, *last, nn.Conv2d(width, 1, 3, 1, 1), Cosid())


MEMORIES = {"dense": dense_memory, "convolutional": convolutional_memory}


@dataclass(frozen=True)
class Loop:
    """Repeated application of the autoencoder to a picture."""

    form: Form = "stochastic"
    n_loops: int = 30
    n_copies: int = 50
    alpha: float = 1.0
    beta: float = 2.6
    seed: int = 0

    def perceive(self, memory: nn.Module, observed: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return the picture after ``n_loops`` passes, without clamping."""
        if self.form == "none":
            return observed
        if self.form == "vanilla":
            return next(islice(orbit(memory, observed), self.n_loops, None))
        ends = [next(islice(self.paths(memory, one), self.n_loops, None)) for one in observed.split(1)]
        return torch.cat([end.mean(0, keepdim=True) for end in ends])

    def paths(self, memory: nn.Module, observed: Float[Tensor, "1 1 h w"]) -> Iterator[Float[Tensor, "c 1 h w"]]:
        """Yield the copies of a picture after 0, 1, … passes."""
        if self.form != "stochastic":
            yield from orbit(memory, observed)
        seeded = torch.Generator().manual_seed(self.seed)
        copies = observed.expand(self.n_copies, -1, -1, -1)
        for step in count():
            yield copies
            strength = self.alpha * self.beta**-step
            copies = memory(disturb(copies, strength, seeded) if strength > UNFELT else copies)


def orbit(memory: nn.Module, observed: Float[Tensor, "b 1 h w"]) -> Iterator[Float[Tensor, "b 1 h w"]]:
    while True:
        yield observed
        observed = memory(observed)


class Perceive(nn.Module):
    """Trunk of the encoder, from normalised pixels to a reconstructed grey picture."""

    def __init__(self, memory: nn.Module, loop: Loop) -> None:
        super().__init__()
        self.memory, self.loop = memory, loop

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.loop.perceive(self.memory, grey(pixels))


def grey(pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return luma (Rec. 601) in [0, 1]."""
    return (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def distance(a: Float[Tensor, "n 1 h w"], b: Float[Tensor, "m 1 h w"]) -> Float[Tensor, " k"]:
    """Return the root mean square difference of each pair of pictures."""
    return (a - b).flatten(1).square().mean(1).sqrt()


def judge_of(side: int, n_classes: int) -> nn.Sequential:
    """Return the authors' classifier of reconstructed pictures: fully connected, side²-500-100-k, with ReLU."""
    first, last = nn.Linear(side * side, 500), (nn.Linear(500, 100), nn.ReLU(), nn.Linear(100, n_classes))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), *last)


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks."""

    side: int
    memory: str
    width: int
    depth: int
    n_classes: int

    def make(self) -> tuple[nn.Sequential, nn.Sequential]:
        return MEMORIES[self.memory](self.side, self.width, self.depth), judge_of(self.side, self.n_classes)

    @property
    def transform(self) -> Transform:
        size = (self.side, self.side)
        return Transform(size, size, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def encoder(self, name: str, trunk: nn.Module, head: nn.Module, fingerprint: str) -> Encoder:
        return Encoder(
            name=f"{name} of {self.side} px",
            transform=self.transform,
            trunk=lambda: trunk,
            head=head,
            layout=Layout(),
            fingerprint=fingerprint,
            module=lambda: nn.Sequential(trunk, head),
            engine="torch",
        )


@dataclass(frozen=True)
class PerceptualNetwork(Network):
    """An autoencoder, its loop, and a classifier."""

    where: ClassVar[str] = "hires_cam"

    shape: Shape
    loop: Loop
    memory: nn.Sequential = field(repr=False)
    judge: nn.Sequential = field(repr=False)
    known: Float[Tensor, "n 1 h w"] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    labels: Int[Tensor, " n"] = field(repr=False)

    @cached_property
    def trunk(self) -> nn.Module:
        return freeze(Perceive(self.memory, self.loop))

    def encoder(self) -> Encoder:
        trained = {name: t for name, t in self.tensors().items() if name not in ("known", "labels")}
        digest = weights_digest(trained, f"{self.loop}{self.shape.transform.fingerprint}")
        return self.shape.encoder("perceiver", self.trunk, freeze(self.judge), digest)

    @torch.no_grad()
    def perceived(self, pixels: Float[Tensor, "3 h w"]) -> Perception | None:
        """Return the picture after every pass, and the memorised picture nearest to the last picture."""
        if self.loop.form == "none":
            return None
        path = list(islice(self.loop.paths(self.memory, grey(pixels[None])), self.loop.n_loops + 1))
        seen = path[-1].mean(0, keepdim=True)
        far = distance(seen, self.known)
        nearest = int(far.argmin())
        return Perception(
            torch.cat([copies.mean(0) for copies in path]),
            tuple(float(distance(a, b).mean()) for a, b in pairwise(path)),
            float(distance(path[-1], seen).mean()),
            len(path[-1]),
            self.known[nearest, 0],
            self.names[nearest],
            int(self.labels[nearest]),
            float(far[nearest]),
        )

    def tensors(self) -> dict[str, Tensor]:
        weights = state_delta({"memory": self.memory, "judge": self.judge}, {}, whole=True)
        return {**weights, "known": self.known, "labels": self.labels}

    def facts(self) -> dict[str, Any]:
        return {"shape": vars(self.shape), "loop": vars(self.loop), "names": list(self.names)}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        shape, loop = Shape(**facts["shape"]), Loop(**facts["loop"])
        with seeded(0):
            memory, judge = shape.make()
        load_delta({"memory": memory, "judge": judge}, tensors, whole=True)
        for module in (memory, judge):
            freeze(module)
        return cls(base, shape, loop, memory, judge, tensors["known"], tuple(facts["names"]), tensors["labels"])


def disturb(pictures: Float[Tensor, "b 1 h w"], strength: float, seeded: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """Apply random affine transforms, blur, noise, and changes of contrast and brightness, in the authors' ranges."""
    n = len(pictures)

    def draw(low: float, high: float) -> Float[Tensor, " b"]:
        return low + (high - low) * torch.rand(n, generator=seeded)

    moved = grid_sample(pictures, _grid(pictures, strength, draw), align_corners=False)
    blurred = _blur(moved, draw(0, 0.6 * strength) * (draw(0, 1) < 0.5))
    contrast = draw(1 - 0.25 * strength, 1 + 0.5 * strength)[:, None, None, None]
    noise = torch.randn(pictures.shape, generator=seeded) * draw(0, 0.05 * strength)[:, None, None, None]
    brightness = draw(1 - 0.2 * strength, 1 + 0.2 * strength)[:, None, None, None]
    return ((blurred - 0.5) * contrast + 0.5 + noise) * brightness


def _grid(
    pictures: Float[Tensor, "b 1 h w"], strength: float, draw: Callable[[float, float], Tensor]
) -> Float[Tensor, "b h w 2"]:
    left, right, top, bottom = (draw(0, 0.04 * strength) for _ in range(4))
    scale_x, scale_y = (draw(1 - 0.3 * strength, 1 + 0.3 * strength) for _ in range(2))
    shift_x, shift_y = (draw(-0.1 * strength, 0.1 * strength) for _ in range(2))
    angle = draw(-10 * strength, 10 * strength) * (math.pi / 180)
    shear = draw(-6 * strength, 6 * strength) * (math.pi / 180)
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    width, height = 1 - left - right, 1 - top - bottom
    wide, high = width / scale_x, height / scale_y
    turn = torch.stack([wide * cos, wide * (sin + slant * cos), -high * sin, high * (cos - slant * sin)], 1)
    turn = turn.unflatten(1, (2, 2))
    crop = torch.stack([left - right, top - bottom], 1)[:, :, None]
    shift = 2 * torch.stack([shift_x, shift_y], 1)[:, :, None]
    return affine_grid(torch.cat([turn, crop - turn @ shift], 2), list(pictures.shape), align_corners=False)


def _blur(pictures: Float[Tensor, "b 1 h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b 1 h w"]:
    """Blur each picture with a Gaussian kernel of five taps and its own ``sigma``; 0 means no blur."""
    taps = torch.exp(-torch.arange(-2.0, 3.0).square() / (2 * sigma[:, None].square().clamp(min=1e-6)))
    taps = taps / taps.sum(1, keepdim=True)
    n = len(pictures)
    across = conv2d(pad(pictures, (2, 2, 0, 0), "replicate").transpose(0, 1), taps[:, None, None, :], groups=n)
    down = pad(across.transpose(0, 1), (0, 0, 2, 2), "replicate").transpose(0, 1)
    return conv2d(down, taps[:, None, :, None], groups=n).transpose(0, 1)


@classifiers.register
@dataclass(frozen=True)
class Perceptual(NetworkRecipe):
    """Classifier of small grey pictures that an autoencoder first reconstructs.

    The autoencoder is trained until it has memorised the training pictures. The autoencoder is applied repeatedly, and
    the classifier gets the last reconstruction, which the card shows. The reconstruction is close to a training
    picture, so it can reveal private data. The method is experimental: the paper has results only for digits of 28 × 28
    pixels, and the authors train for 100,000 epochs.

    Args:
        form: ``"stochastic"``, ``"vanilla"``, or ``"none"`` for a plain classifier as a baseline.
        side: side of the grey pictures in pixels (authors: 28).
        memory: form of the autoencoder: ``"dense"`` or ``"convolutional"`` (paper).
        width: channels of the autoencoder (authors: 256).
        depth: number of layers of a dense autoencoder. With few layers, repeated passes do not converge to training
            pictures.
        memory_steps: training steps of the autoencoder, each on up to 500 pictures.
        memory_lr: learning rate of the autoencoder (authors: 1e-5).
        judge_epochs: epochs of the classifier (authors: 25 to 200).
        n_loops: number of passes through the autoencoder (authors: 30); more passes give a more stable picture.
        n_copies: number of disturbed copies over which the reconstruction is averaged (authors: 500).
    """

    name: ClassVar[str] = "perceptual"
    paper: ClassVar[str] = "Kupeev & Nitzany 2023, arXiv:2310.05212"
    needs: ClassVar[str] = "small labelled pictures"
    cost: ClassVar[str] = "n_loops × n_copies, of its autoencoder"
    network: ClassVar[type[Network] | None] = PerceptualNetwork
    takes: ClassVar = ()
    small: ClassVar = {"side": 32, "width": 8, "depth": 2, "memory_steps": 4, "judge_epochs": 2} | {
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
        own, labels = ~pictures.held, pictures.labels
        known, error = greys[own], 0.0
        if self.form != "none":
            size, lr = min(len(known), 500), self.memory_lr
            how = Training(self.memory_steps, size, lr=lr, weight_decay=0, schedule="cosine", seed=self.seed)
            train(Memorising(memory), TrainingData(len(known), {"pixels": known}), how, progress=progress)
            with torch.no_grad():
                error = float(frobenius(memory(known), known))
        with torch.no_grad():
            seen = loop.perceive(memory, greys)
        self._judge(judge, seen[own], labels[own], progress)
        names = tuple(s.image for s, keep in zip(pictures.items, own.tolist(), strict=True) if keep)
        for module in (memory, judge):
            freeze(module)
        network = PerceptualNetwork(fitting.encoder, shape, loop, memory, judge, known.contiguous(), names, labels[own])
        held, logits = pictures.held, judge(seen)
        measured = HeldOut(logits[held], labels[held], logits[held], pictures.groups[held]) if held.any() else None
        made = self.classifier(network, pictures, Head(Normalise(), torch.eye(len(pictures.classes))), measured)
        return Outcome(made, pictures, {"reconstruction": round(error, 4)})

    def _judge(
        self, judge: nn.Sequential, seen: Float[Tensor, "n 1 h w"], labels: Int[Tensor, " n"], progress: Progress
    ) -> None:
        size = min(100, len(seen))
        steps = self.judge_epochs * max(1, len(seen) // size)
        how = Training(steps, size, lr=1e-3, weight_decay=0, schedule="constant", seed=self.seed)
        data = TrainingData(len(seen), {"pixels": seen, "labels": labels})
        train(Supervised(judge), data, how, progress=progress)


class Memorising(Task):
    needs = ("pixels",)

    def __init__(self, memory: nn.Module) -> None:
        super().__init__()
        self.memory = memory.requires_grad_(True)

    def features(self, batch: Batch) -> Float[Tensor, "b 1 h w"]:
        return self.memory(batch["pixels"])

    def loss(self, features: Float[Tensor, "b 1 h w"], batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": frobenius(features, batch["pixels"])}


def frobenius(a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    return (a - b).flatten(1).norm(dim=1).mean()


def reader(shape: Shape) -> Encoder:
    """Return an encoder whose pooled vector is the grey picture."""
    trunk = freeze(Perceive(nn.Identity(), Loop("none")))
    return shape.encoder("grey pictures", trunk, nn.Flatten(), f"grey{shape.side}")
