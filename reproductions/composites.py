"""Drawn things with masks, boxes and captions, and a small encoder that learnt what they are called from captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.split import Split, freeze
from seewhy.learning.adaptation.backbone import N_CHANNELS, SmallResNet
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from seewhy.pictures.pixel_classes import MaskedPictures, load_masks
from seewhy.seeded import seeded
from seewhy.types import Transform

SIDE, MOST = 48, 3
"""Pixels, and things in a picture."""
SHAPES = ("disc", "square", "triangle")
COLOURS = {"red": (215, 45, 40), "green": (50, 160, 60), "blue": (50, 90, 215)}
NAMES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
CLASSES = ("ground", *NAMES)
WORDS = ("ground", *COLOURS, *SHAPES)
SCALE = 14.0
"""Of cosines in the loss of captions: CLIP's at first."""


@dataclass(frozen=True)
class Composites:
    """Pictures with what is in them; a box of zeros and a label of -1 where there is nothing."""

    pixels: UInt8[Tensor, "n 3 s s"]
    masks: UInt8[Tensor, "n s s"]
    boxes: Float[Tensor, "n m 4"]
    labels: Int[Tensor, "n m"]

    def captions(self) -> list[str]:
        return [" and ".join(NAMES[k] for k in own if k >= 0) for own in self.labels.tolist()]

    def masked(self, folder: Path) -> MaskedPictures:
        """The same as files."""
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        for i, (picture, mask) in enumerate(zip(self.pixels, self.masks, strict=True)):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / "images" / f"{i:03}.png")
            Image.fromarray(mask.numpy()).save(folder / "labels" / f"{i:03}.png")
        return load_masks(folder, classes=CLASSES)

    def boxed(self, folder: Path) -> BoxData:
        """Boxes of the files that :meth:`masked` wrote."""
        pictures = []
        for i, (boxes, labels) in enumerate(zip(self.boxes.tolist(), self.labels.tolist(), strict=True)):
            own = [BoxRecord(tuple(b), NAMES[k]) for b, k in zip(boxes, labels, strict=True) if k >= 0]
            pictures.append(BoxedPicture(str(folder / "images" / f"{i:03}.png"), (SIDE, SIDE), tuple(own)))
        return BoxData(tuple(pictures), NAMES)


def composites(n: int, seed: int) -> Composites:
    """One to three things that do not touch, on a grey ground with grain.

    >>> made = composites(2, 0)
    >>> made.masks.shape, made.captions()[0].split()[1] in SHAPES
    (torch.Size([2, 48, 48]), True)
    """
    rng = np.random.default_rng([seed, 5])
    return Composites(*(torch.stack(each) for each in zip(*(_scene(rng) for _ in range(n)), strict=True)))


def _scene(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    pixels = rng.integers(60, 200) + rng.integers(-15, 16, 3) + np.zeros((SIDE, SIDE, 3))
    mask, boxes, labels = np.zeros((SIDE, SIDE), np.uint8), torch.zeros(MOST, 4), torch.full((MOST,), -1)
    taken: list[tuple[float, float, float]] = []
    for i in range(int(rng.integers(1, MOST + 1))):
        r = float(rng.uniform(5, 10))
        u, v = (float(rng.uniform(r + 1, SIDE - r - 1)) for _ in range(2))
        if any(max(abs(u - a), abs(v - b)) <= r + c + 1 for a, b, c in taken):
            continue
        taken.append((u, v, r))
        label = int(rng.integers(len(NAMES)))
        colour, shape = NAMES[label].split()
        across, down = (x - u) / r, (y - v) / r
        inside = {
            "disc": across**2 + down**2 < 1,
            "square": (abs(across) < 0.85) & (abs(down) < 0.85),
            "triangle": (down < 0.9) & (2 * abs(across) - 0.9 < down),
        }[shape]
        pixels[inside] = np.array(COLOURS[colour]) + rng.uniform(-25, 25, 3)
        mask[inside] = 1 + label
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        boxes[i] = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)
        labels[i] = label
    grain = (pixels + rng.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(grain).permute(2, 0, 1).contiguous(), torch.from_numpy(mask), boxes, labels


class Vocabulary:
    """The words half: a sentence is the mean of the words that it has and that are known."""

    logit_scale = SCALE
    templates = ("{}",)

    def __init__(self, vectors: Float[Tensor, "w d"], fingerprint: str) -> None:
        self.vectors, self.fingerprint = vectors, fingerprint

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return normalize(counts(texts) @ self.vectors, dim=1)

    def project(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return pooled


def counts(texts: Sequence[str]) -> Float[Tensor, "n w"]:
    """How often each word stands in each text."""
    every = [text.replace(".", " ").split() for text in texts]
    return torch.tensor([[float(words.count(word)) for word in WORDS] for words in every])


def encoder_of_captions(n_steps: int = 500, n_pictures: int = 2000, batch: int = 64, seed: int = 0) -> Encoder:
    """A small ResNet and vectors of words that learnt which caption belongs to which picture (CLIP's loss)."""
    shown = composites(n_pictures, 1000 + seed)
    texts, pixels = counts(shown.captions()), shown.pixels.float() / 127.5 - 1
    with seeded(seed), torch.enable_grad():
        trunk, words = SmallResNet().train(), nn.Parameter(0.3 * torch.randn(len(WORDS), N_CHANNELS))
        optimiser = torch.optim.AdamW([*trunk.parameters(), words], lr=3e-3, weight_decay=1e-4)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, n_steps)
        for _ in range(n_steps):
            rows = torch.randperm(n_pictures)[:batch]
            seen = normalize(trunk(pixels[rows]).mean((2, 3)), dim=1)
            logits = SCALE * seen @ normalize(texts[rows] @ words, dim=1).T
            same = (texts[rows][:, None] == texts[rows][None]).all(2)
            target = same.float() / same.sum(1, keepdim=True)  # a caption may come twice
            loss = cross_entropy(logits, target) + cross_entropy(logits.T, target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
    half = (0.5, 0.5, 0.5)
    transform, pool = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", half, half), GlobalAverage()
    network = nn.Sequential(freeze(trunk), pool)
    split = Split(trunk, pool, Layout())
    made = split.encoder(network, "a small ResNet with words", transform, engine="torch")
    vectors = words.detach()
    return made.but(text=lambda: Vocabulary(vectors, made.fingerprint), engine="torch")
