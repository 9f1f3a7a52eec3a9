"""Trainable copies of an encoder's trunk and pooling, and a small ResNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

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
from ...heads.head import Feature, Head
from ...heads.normalise import Normalise
from ...seeded import seeded
from ...training.augmentation import TrainingPictures
from ..encoders.delta import WITHOUT_WORDS, halves_of, load_delta, state_delta

Backbone = Literal["encoder", "scratch"]
OF_ITS_OWN: dict[str, Any] = {**WITHOUT_WORDS, "module": None}
"""Fields of an encoder that are reset with a new trunk."""
N_CHANNELS = 64
"""Output channels of the small ResNet."""
BLOCKS = ((16, 16, 1), (16, 32, 2), (32, N_CHANNELS, 2))
"""Input channels, output channels and stride of each block."""


def halves(base: Encoder, backbone: Backbone) -> tuple[nn.Module, nn.Module, Layout]:
    """Return trunk, pooling and layout: copies from the encoder, or an untrained small ResNet."""
    return new_halves() if backbone == "scratch" else (*halves_of(base), base.layout)


def encode_for(fitting: Fitting, base: Encoder, backbone: Backbone) -> EncodedSet:
    """Encode the pictures if the encoder is trained; otherwise, only check that they are readable."""
    if backbone == "encoder":
        return fitting.look(base)
    trunk, pool, layout = new_halves()
    parts = {"name": "reader", "fingerprint": "reader", "trunk": lambda: trunk, "head": pool, "layout": layout}
    return fitting.look(base.but(**parts, **OF_ITS_OWN, engine="torch"), keep=False)


def training_columns(fitting: Fitting, base: Encoder, pictures: EncodedSet) -> dict[str, Any]:
    chosen = pictures.trained
    read = TrainingPictures(base, [pictures.items[i].source for i in chosen], None, fitting.progress)
    return {"pixels": read, "labels": pictures.labels[chosen]}


@dataclass(frozen=True, eq=False)
class BackboneNetwork(Network):
    """A trained trunk and its pooling."""

    grown_on: Encoder
    trunk: nn.Module
    pool: nn.Module
    layout: Layout
    settings: dict[str, Any]

    @property
    def base(self) -> Encoder:
        return self.grown_on

    def grown(self, trunk: nn.Module, whole: nn.Module, mark: str = "", **more: Any) -> Encoder:
        """Return the encoder with a new trunk; the fingerprint depends on ``whole`` and ``mark``."""
        transform, backbone = sized(self.grown_on, self.settings["size"]).transform, self.settings["backbone"]
        parts: dict[str, Any] = {
            **OF_ITS_OWN, "transform": transform, "trunk": lambda: trunk, "head": self.pool, "layout": self.layout,
            "fingerprint": fingerprint(whole, transform) + mark, "module": lambda: whole,
        }  # fmt: skip
        if backbone != "encoder":
            parts["name"] = f"small ResNet, {transform.input_size[1]} px"
        return self.grown_on.but(**{**parts, **more})

    def tensors(self) -> dict[str, Tensor]:
        trunk, pool, _ = halves(self.grown_on, backbone := self.settings["backbone"])
        parts, before = {"trunk": self.trunk, "pool": self.pool}, {"trunk": trunk, "pool": pool}
        return state_delta(parts, before, whole=backbone == "scratch")

    def facts(self) -> dict[str, Any]:
        return dict(self.settings)

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        trunk, pool, layout = halves(base, facts["backbone"])
        load_delta({"trunk": trunk, "pool": pool}, tensors, whole=facts["backbone"] == "scratch")
        return cls(base, trunk, pool, layout, dict(facts), **cls.rest(facts, tensors))

    @classmethod
    def rest(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return further constructor arguments."""
        return {}


class Predictor(nn.Module):
    """A network from pixels to logits."""

    def __init__(self, trunk: nn.Module, pool: nn.Module, feature: Feature, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.trunk, self.pool, self.feature = trunk, pool, feature
        self.weight, self.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return linear(self.feature(self.pool(self.trunk(pixels))), self.weight, self.bias)

    def head(self) -> Head:
        return Head(self.feature, self.weight, self.bias)


def new_predictor(n_classes: int) -> Predictor:
    """Return an untrained small ResNet with a linear layer."""
    last = nn.Linear(N_CHANNELS, n_classes)
    return Predictor(SmallResNet(), GlobalAverage(), Normalise(), last.weight, last.bias)


def predictor_of(encoder: Encoder, head: Head) -> Predictor:
    """Return a frozen copy of an encoder with a linear head."""
    trunk, pool = halves_of(encoder)
    return Predictor(trunk, pool, head.feature, head.scale * head.weight, head.bias).requires_grad_(False)


def new_halves() -> tuple[nn.Module, nn.Module, Layout]:
    with seeded(0):
        return freeze(SmallResNet()), GlobalAverage(), Layout()


class SmallResNet(nn.Module):
    """Three residual blocks (He et al. 2015, arXiv 1512.03385) at 1/2, 1/4 and 1/8 of the side; 78,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*(Residual(*sizes, nn.BatchNorm2d) for sizes in BLOCKS))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        features: Tensor = self.blocks(self.start(pixels))
        return features


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
    resize = round(own.resize * size / min(own.input_size)) if isinstance(own.resize, int) else (size, size)
    transform = replace(own, input_size=(size, size), resize=resize)
    own_size = {**OF_ITS_OWN, "text": (lambda: encoder.text) if encoder.has_text else None}
    return encoder.but(**own_size, transform=transform, fingerprint=f"{encoder.fingerprint}-{size}px")
