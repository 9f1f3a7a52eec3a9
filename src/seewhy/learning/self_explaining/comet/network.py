"""What a COMET classifier looks through: its selector, pixels → a mask over them, then the predictor's trunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ....encoders.base import Encoder
from ....encoders.split import freeze
from ....errors import MissingExtraError
from ....seeded import seeded
from ....types import Transform
from ...adaptation.backbone import BackboneNetwork, sized
from ...encoders.delta import load_delta

Kind = Literal["unet", "lraspp"]
Fill = Literal["mean", "black"]


class Selector(nn.Module):
    """``S = sigmoid(enlarged(network(pixels)))``: one mask a picture, of no class, in (0, 1)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        return _enlarged(self.network(pixels), pixels).sigmoid()[:, 0]


def make_selector(kind: Kind) -> Selector:
    """A selector with new weights, from torch's random numbers."""
    if kind == "unet":
        return Selector(UNet())
    try:
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    except ImportError as error:
        raise MissingExtraError("torchvision", "The selector 'lraspp'") from error
    return Selector(_Out(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1)))


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597) that works at half the picture's side and below."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 64)) -> None:
        super().__init__()
        self.start = _block(3, widths[0], stride=2)
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise(widths))
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed(pairs))
        self.last = nn.Conv2d(widths[0], 1, 1)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 gh gw"]:
        maps = [self.start(pixels)]
        for step in self.down:
            maps.append(step(maps[-1]))
        x = maps.pop()
        for step in self.up:
            finer = maps.pop()
            x = step(torch.cat([finer, _enlarged(x, finer)], 1))
        out: Tensor = self.last(x)
        return out


def _block(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
        nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


class _Out(nn.Module):
    """The one output of torchvision's segmentation networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        out: Tensor = self.network(pixels)["out"]
        return out


def _enlarged(maps: Float[Tensor, "b c _h _w"], like: Float[Tensor, "b _c h w"]) -> Float[Tensor, "b c h w"]:
    return interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


class Hide(nn.Module):
    """``x ∘ S + q ∘ (1 − S)``: what the mask leaves out becomes the fill ``q``."""

    q: Tensor

    def __init__(self, fill: Fill, transform: Transform) -> None:
        super().__init__()
        black = -torch.tensor(transform.mean) / torch.tensor(transform.std)
        colour = black if fill == "black" else torch.zeros(3)
        self.register_buffer("q", colour[:, None, None], persistent=False)

    def forward(self, pixels: Float[Tensor, "b 3 h w"], mask: Float[Tensor, "b h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.q + (pixels - self.q) * mask[:, None]


class SelectedTrunk(nn.Module):
    """A trunk that looks through its selector: features of the picture times its mask."""

    def __init__(self, selector: Selector, hide: Hide, trunk: nn.Module) -> None:
        super().__init__()
        self.selector = selector
        self.hide = hide
        self.trunk = trunk

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        features: Tensor = self.trunk(self.hide(pixels, self.selector(pixels)))
        return features


@dataclass(frozen=True, eq=False)
class COMETNetwork(BackboneNetwork):
    """A selector before a trunk; its settings are ``selector``, ``backbone``, ``fill``, ``size`` and ``frozen``."""

    where: ClassVar[str] = "comet"

    selector: Selector

    def encoder(self) -> Encoder:
        own, fill = self.grown_on, self.settings["fill"]
        hide = Hide(fill, sized(own, self.settings["size"]).transform)
        seen = freeze(SelectedTrunk(self.selector, hide, self.trunk))
        words = (lambda: own.text) if self.settings["frozen"] and own.has_text else None
        return self.grown(seen, nn.ModuleList([seen, self.pool]), f"-{fill}", text=words)

    def tensors(self) -> dict[str, Tensor]:
        return {**{f"selector.{n}": t for n, t in self.selector.state_dict().items()}, **super().tensors()}

    @classmethod
    def rest(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        with seeded(0):
            selector = make_selector(facts["selector"])
        load_delta({"selector": selector}, tensors, whole=True)
        return {"selector": freeze(selector)}
