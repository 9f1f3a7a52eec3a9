"""A drawn world whose words are known exactly: four parts, five colours, and an image-text encoder that reads both.

Every class has a colour for each of four parts; a picture shows the parts as quarters in noisy shades of their colours.
The text half turns *a red crown* into the direction of red in the crown's quarter, adds up what a sentence says, and
knows of a class's name a blurred picture of the class, so that names alone are right on some pictures only. Words it
does not know point anywhere. So descriptions mean something here, and what each control takes away is known.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from seewhy.descriptions import Descriptions
from seewhy.encoders.base import Encoder, Layout
from seewhy.language.questions import Difference, Pair
from seewhy.types import Transform

SIDE = 32
PARTS = ("crown", "wing", "belly", "tail")
COLOURS = {
    "red": (200, 60, 60),
    "green": (60, 180, 80),
    "blue": (70, 90, 210),
    "yellow": (210, 200, 70),
    "grey": (90,) * 3,
}
NAMES = tuple(f"{a}{b}" for a in ("mer", "tol", "sar", "vin") for b in ("ak", "ost", "une"))
WIDTH = 3 * len(PARTS)


class World:
    """Twelve classes, drawn with a seed.

    Args:
        seed: of colours, names' blur and pictures.
        blur: of names: how much of a name's direction is noise.
        shade: spread of the shades in a picture, in grey levels.
    """

    def __init__(self, seed: int, blur: float = 2.0, shade: float = 60.0) -> None:
        rng = np.random.default_rng([seed, 17])
        self.seed, self.blur, self.shade = seed, blur, shade
        palette = list(COLOURS)
        kinds: list[tuple[str, ...]] = []
        while len(kinds) < len(NAMES):
            kind = tuple(palette[i] for i in rng.integers(len(palette), size=len(PARTS)))
            if kind not in kinds:
                kinds.append(kind)
        self.kinds = dict(zip(NAMES, kinds, strict=True))

    def descriptions(self) -> Descriptions:
        return Descriptions(
            {n: tuple(f"a {c} {p}" for c, p in zip(k, PARTS, strict=True)) for n, k in self.kinds.items()}
        )

    def pairs(self, *, shared: bool = False) -> list[Pair]:
        """What parts each two classes, exactly: the parts in which they differ; or those in which they do not."""
        found = []
        for i, a in enumerate(NAMES):
            for b in NAMES[i + 1 :]:
                differ = [j for j in range(len(PARTS)) if (self.kinds[a][j] == self.kinds[b][j]) == shared]
                texts = [(PARTS[j], caption(a, self.kinds[a][j], j), caption(b, self.kinds[b][j], j)) for j in differ]
                found += [Pair((a, b), tuple(Difference(*t) for t in texts))] if texts else []
        return found

    def draw(self, folder: Path, n: int, split: int = 0) -> Path:
        """``n`` pictures a class in class folders."""
        rng = np.random.default_rng([self.seed, 23, split])
        for name, kind in self.kinds.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                canvas = np.zeros((SIDE, SIDE, 3))
                for j, colour in enumerate(kind):
                    rows, columns = np.s_[16 * (j // 2) : 16 * (j // 2) + 16], np.s_[16 * (j % 2) : 16 * (j % 2) + 16]
                    canvas[rows, columns] = np.array(COLOURS[colour]) + rng.normal(0, self.shade, 3)
                pixels = (canvas + rng.normal(0, 10, canvas.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{i}.png")
        return folder

    def encoder(self) -> Encoder:
        transform = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        trunk, head, text = nn.AdaptiveAvgPool2d(2), Quarters(), Reader(self)
        return Encoder(
            name="drawn world",
            transform=transform,
            trunk=lambda: trunk,
            head=head,
            layout=Layout(),
            fingerprint=f"drawn world {self.seed} {self.blur} {self.shade}",
            text=lambda: text,
            engine="torch",
        )


def caption(name: str, colour: str, part: int) -> str:
    return f"A photo of a {name}, with a {colour} {PARTS[part]}"


class Quarters(nn.Module):
    """Colours of the four quarters, in a row."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 3, 1).flatten(1)


class Reader:
    """The text half: adds up what it knows of a sentence."""

    logit_scale = 20.0
    templates = ("a photo of a {}.",)

    def __init__(self, world: World) -> None:
        self.world = world
        self.fingerprint = f"reader of drawn world {world.seed} {world.blur}"
        self.middle = torch.tensor(np.mean(list(COLOURS.values()), 0)).float()

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([self._vector(t.lower()) for t in texts])

    def project(self, pooled: Tensor) -> Tensor:
        middle = ((self.middle / 255 - 0.5) / 0.25).repeat(len(PARTS))
        return pooled - middle.to(pooled)

    def _vector(self, text: str) -> Tensor:
        total = torch.zeros(WIDTH)
        for name, kind in self.world.kinds.items():
            if name in text:
                own = sum((self._part(c, j) for j, c in enumerate(kind)), torch.zeros(WIDTH))
                total = total + normalize(normalize(own, dim=0) + self.world.blur * _anywhere(name), dim=0)
        for j, part in enumerate(PARTS):
            for colour in COLOURS:
                if f"{colour} {part}" in text:
                    total = total + normalize(self._part(colour, j), dim=0)
        # What is not understood adds a little of some other direction, as in any encoder.
        return normalize(total + 0.3 * _anywhere(text), dim=0)

    def _part(self, colour: str, part: int) -> Tensor:
        vector = torch.zeros(len(PARTS), 3)
        vector[part] = torch.tensor(COLOURS[colour]) - self.middle
        return vector.flatten() / 64


def _anywhere(text: str) -> Tensor:
    drawn = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    return normalize(torch.randn(WIDTH, generator=drawn), dim=0)
