"""Networks small enough to build by hand, whose explanations are known before they are asked for."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.split import fingerprint
from seewhy.types import Transform

SIDE = 32
TRANSFORM = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CLASSES = ("moss", "rust", "sky", "sand")
COLOURS = {"moss": (40, 150, 50), "rust": (180, 70, 30), "sky": (90, 150, 230), "sand": (220, 200, 130)}


class Tokens(nn.Module):
    """Patch tokens behind one class token."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.start = nn.Parameter(torch.randn(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        grid = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.start.expand(x.shape[0], -1, -1), grid], 1)


class Mixing(nn.Module):
    """Class token plus a softmax-weighted mean of squashed tokens: linear in nothing."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.weigh = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        weights = self.weigh(tokens).softmax(1)
        return tokens[:, 0] + (weights * self.mix(tokens).tanh()).sum(1)


class HashedWords:
    """A text tower whose sentences are random unit vectors, the same on every run; a word can be planted."""

    logit_scale = 20.0
    templates = ("a photo of a {}.", "a drawing of a {}.")

    def __init__(self, width: int = 8, planted: dict[str, Tensor] | None = None) -> None:
        self.width = width
        self.planted = planted or {}
        self.fingerprint = f"hashed words {width}"
        self.shift = torch.linspace(-0.2, 0.2, width)
        self.n_encoded = 0

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.n_encoded += len(texts)
        return torch.stack([self._vector(t) for t in texts])

    def _vector(self, text: str) -> Tensor:
        for word, vector in self.planted.items():
            if word in text:
                return normalize(vector, dim=0)
        seeded = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return normalize(torch.randn(self.width, generator=seeded), dim=0)

    def project(self, pooled: Tensor) -> Tensor:
        return 2 * pooled + self.shift.to(pooled)


def build(trunk: nn.Module, head: nn.Module, layout: Layout, width: int = 8, **options: Any) -> Encoder:
    """An encoder of these parts, with a last layer of four classes and words."""
    layer = options.pop("classifier", None) or nn.Linear(width, len(CLASSES))
    text = options.pop("text", None) or HashedWords(width)
    whole = nn.ModuleList([trunk, head, layer]).eval().requires_grad_(False)
    return Encoder(
        name=options.pop("name", "tiny"),
        transform=TRANSFORM,
        trunk=lambda: trunk,
        head=head,
        layout=layout,
        fingerprint=fingerprint(whole, TRANSFORM),
        classifier=layer,
        classes=CLASSES[: layer.out_features],
        text=lambda: text,
        module=lambda: whole,
        engine="torch",
    )


def tiny_cnn(seed: int = 0, **options: Any) -> Encoder:
    """Two convolutions and a mean: the head whose explanations have a closed form. Grid 8 by 8, width 8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.Tanh())
        return build(trunk, GlobalAverage(), Layout(), **options)


def tiny_tokens(seed: int = 0, **options: Any) -> Encoder:
    """Tokens with a prefix and a head that is not linear. Grid 4 by 4, width 8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(Tokens(), Mixing(), Layout("tokens", (4, 4), 1), **options)


class Channels(nn.Module):
    """Mean brightness of red, green and blue in each 4 by 4 cell."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4)


def colour_reader() -> Encoder:
    """Reads colours alone: class *red* from red light, *blue* from blue light. Grid 8 by 8, width 3."""
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]))
        layer.bias.zero_()
    return build(Channels(), GlobalAverage(), Layout(), 3, classifier=layer)


HUES = {"moss": "green", "rust": "brown", "sky": "blue", "sand": "pale"}


class ColourWords(HashedWords):
    """Knows colours by their words; every other text is at right angles to all pictures."""

    def __init__(self) -> None:
        seen = {h: 2 * (torch.tensor(COLOURS[c]) / 255 - 0.5) / 0.25 for c, h in HUES.items()}
        super().__init__(3, {h: torch.cat([v, torch.zeros(3)]) for h, v in seen.items()})
        self.fingerprint = "colour words"

    def _vector(self, text: str) -> Tensor:
        drawn = super()._vector(text)
        return drawn if len(drawn) == 6 else torch.cat([torch.zeros(3), drawn])

    def project(self, pooled: Tensor) -> Tensor:
        return torch.cat([2 * pooled, torch.zeros_like(pooled)], 1)


@cache
def colours() -> Encoder:
    """Reads the mean colour, and knows the words for it."""
    return build(Channels(), GlobalAverage(), Layout(), 3, text=ColourWords())


def noise(n: int, seed: int = 0) -> Tensor:
    """Normalised pixels."""
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def picture(label: str, seed: int, side: int = 40) -> np.ndarray:
    """A texture in the class's colour, different for every seed."""
    rng = np.random.default_rng([zlib.crc32(label.encode()), seed])
    waves = np.sin(np.arange(side)[:, None] / (2 + seed % 3) + rng.uniform(0, 6)) * 25
    pixels = np.array(COLOURS[label]) + waves[..., None] + rng.normal(0, 12, (side, side, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def class_folders(root: Path, n: int = 6, labels: Sequence[str] = CLASSES[:3], side: int = 40) -> Path:
    """``n`` pictures in a folder for each class."""
    for label in labels:
        (root / label).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(picture(label, i, side)).save(root / label / f"{label}_{i}.png")
    return root
