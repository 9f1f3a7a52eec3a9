"""COMET's predictors and detectors: a network that is cut into trunk, pooling and a linear last layer."""

from __future__ import annotations

import copy
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from ..encoders.base import Encoder, GlobalAverage, Layout
from ..encoders.split import freeze
from ..seeded import seeded
from .head import Feature, Head
from .normalise import Normalise

Backbone = Literal["encoder", "scratch"]
N_CHANNELS = 64
"""Of the small network's last map."""


class Predictor(nn.Module):
    """Pixels → logits, with every weight free to be trained.

    Args:
        trunk: pixels → features.
        pool: features → pooled vector.
        feature: what is done to it before the last layer.
        weight: of the last layer.
        bias: of the last layer.
    """

    def __init__(
        self,
        trunk: nn.Module,
        pool: nn.Module,
        feature: Feature,
        weight: Float[Tensor, "k d"],
        bias: Float[Tensor, " k"],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = pool
        self.feature = feature
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return linear(self.feature(self.pool(self.trunk(pixels))), self.weight, self.bias)

    def head(self) -> Head:
        """The last layer, as every classifier has it."""
        return Head(self.feature, self.weight, self.bias)


def new_predictor(n_classes: int) -> Predictor:
    """A small ResNet with new weights, from torch's random numbers."""
    last = nn.Linear(N_CHANNELS, n_classes)
    return Predictor(SmallResNet(), GlobalAverage(), Normalise(), last.weight, last.bias)


def predictor_of(encoder: Encoder, head: Head) -> Predictor:
    """A copy of an encoder's network under a linear head, frozen; the encoder stays as it is."""
    trunk, pool = halves_of(encoder)
    return Predictor(trunk, pool, head.feature, head.scale * head.weight, head.bias).requires_grad_(False)


def halves_of(encoder: Encoder) -> tuple[nn.Module, nn.Module]:
    """Copies of an encoder's trunk and pooling."""
    return freeze(copy.deepcopy(encoder.trunk)).cpu(), freeze(copy.deepcopy(encoder.head)).cpu()


def new_halves() -> tuple[nn.Module, nn.Module, Layout]:
    """Trunk, pooling and layout of the small ResNet, before any training; torch's random numbers stay as they are."""
    with seeded(0):
        return freeze(SmallResNet()), GlobalAverage(), Layout()


class SmallResNet(nn.Module):
    """Three residual blocks (He et al. 2015, arXiv 1512.03385) at 1/2, 1/4 and 1/8 of the side; 78,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(_Block(16, 16, 1), _Block(16, 32, 2), _Block(32, N_CHANNELS, 2))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        features: Tensor = self.blocks(self.start(pixels))
        return features


class _Block(nn.Module):
    """Two convolutions and a way round them."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.way_round = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d gh gw"]:
        return (self.inner(x) + self.way_round(x)).relu()
