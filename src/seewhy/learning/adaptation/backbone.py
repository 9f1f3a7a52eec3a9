"""Classifiers whose image network is trained: a copy of the encoder, or a small ResNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from ...classifiers.encoded_set import EncodedSet
from ...classifiers.fitting import Fitting
from ...classifiers.network import Network
from ...encoders.base import Encoder, GlobalAverage, Layout
from ...encoders.new import Residual
from ...encoders.split import fingerprint, freeze
from ...errors import InputError
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...seeded import seeded
from ...training.augmentation import Augmentation, TrainingPictures
from ..encoders.delta import WITHOUT_WORDS
from ..encoders.image_copy import ImageCopy

Backbone = Literal["encoder", "scratch"]
N_CHANNELS = 64
"""Output channels of the small ResNet."""
BLOCKS = ((16, 16, 1), (16, 32, 2), (32, N_CHANNELS, 2))
"""Input channels, output channels and stride of each block."""


@dataclass(frozen=True)
class Start:
    """The network before training: the encoder at an input size, or an untrained small ResNet."""

    backbone: Backbone = "encoder"
    size: int | None = None

    def of(self, encoder: Encoder) -> Encoder:
        base = sized(encoder, self.size)
        if self.backbone == "encoder":
            return base
        with seeded(0):
            trunk = freeze(SmallResNet())
        name = f"small ResNet, {base.transform.input_size[1]} px"
        own = {"trunk": lambda: trunk, "module": None, "head": GlobalAverage(), "layout": Layout()}
        return base.but(name=name, fingerprint=name, **own, **WITHOUT_WORDS)

    def encode(self, fitting: Fitting, start: Encoder) -> EncodedSet:
        """Encode the pictures if the encoder is trained; otherwise, only check that they are readable."""
        if self.backbone == "encoder":
            return fitting.look(start)
        return fitting.look(start.but(engine="torch"), keep=False)


def training_columns(
    fitting: Fitting, base: Encoder, pictures: EncodedSet, augmentation: Augmentation | None = None
) -> dict[str, Any]:
    chosen = pictures.trained
    sources = [pictures.items[i].source for i in chosen]
    read = TrainingPictures(base, sources, None, fitting.progress, augmentation=augmentation)
    return {"pixels": read, "labels": pictures.labels[chosen]}


@dataclass(frozen=True, eq=False)
class TunedNetwork(Network):
    """The trained image network of a classifier."""

    where: ClassVar[str] = "grad_cam"

    image: ImageCopy
    start: Start

    def encoder(self) -> Encoder:
        before = self.start.of(self.base)
        whole = nn.Sequential(self.image.trunk, self.image.pool)
        return self.image.inside(before, fingerprint=fingerprint(whole, before.transform))

    def tensors(self) -> dict[str, Tensor]:
        return self.image.delta(self.start.of(self.base))

    def facts(self) -> dict[str, Any]:
        return asdict(self.start)

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        start = Start(facts["backbone"], facts["size"])
        return cls(base, ImageCopy.before(start.of(base)).load(tensors), start)


class Predictor(nn.Module):
    """A network from pixels to logits."""

    def __init__(self, image: ImageCopy, head: Head) -> None:
        super().__init__()
        self.image, self.feature = image, head.feature
        self.weight = nn.Parameter((head.scale * head.weight).detach().clone())
        self.bias = nn.Parameter(head.bias.detach().clone())

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return linear(self.feature(self.image(pixels)), self.weight, self.bias)

    def head(self) -> Head:
        return Head(self.feature, self.weight, self.bias)


def new_predictor(n_classes: int) -> Predictor:
    """Return an untrained small ResNet with a linear layer."""
    last = nn.Linear(N_CHANNELS, n_classes)
    return Predictor(ImageCopy(SmallResNet(), GlobalAverage()), Head(Normalise(), last.weight, last.bias))


def predictor_of(encoder: Encoder, head: Head) -> Predictor:
    """Return a frozen copy of an encoder with a linear head."""
    return Predictor(ImageCopy.before(encoder), head).requires_grad_(False)


class SmallResNet(nn.Module):
    """Three residual blocks (He et al. 2015, arXiv 1512.03385) at 1/2, 1/4 and 1/8 of the side; 78,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*(Residual(*sizes, nn.BatchNorm2d) for sizes in BLOCKS))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        return self.blocks(self.start(pixels))


def sized(encoder: Encoder, size: int | None) -> Encoder:
    """Return the encoder with another input size."""
    own = encoder.transform
    if size is None or own.input_size == (size, size):
        return encoder
    if encoder.layout.kind == "tokens":
        raise InputError(
            f"`size` must be {own.input_size[0]} for {encoder.name!r}, got {size}. Leave `size` out, or use a "
            "convolutional encoder."
        )
    own_size = {**WITHOUT_WORDS, "module": None, "text": (lambda: encoder.text) if encoder.has_text else None}
    return encoder.but(**own_size, transform=own.at(size), fingerprint=f"{encoder.fingerprint}-{size}px")
