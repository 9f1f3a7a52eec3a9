"""Two kinds of pictures in ten classes, and small classifiers of them: for PPGN's reproduction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from torch import Tensor, nn

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.new import Residual
from seewhy.encoders.split import fingerprint, freeze
from seewhy.seeded import seeded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised
from seewhy.types import Transform

CODE = 64
HALF = (0.5, 0.5, 0.5)
SIDE = 16
SEEN = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", HALF, HALF)
COLOURS = {"red": (1.0, 0.25, 0.2), "green": (0.3, 0.9, 0.3), "blue": (0.35, 0.5, 1.0)}
DIGITS = tuple("0123456789")
SHAPES = ("disc", "ring", "square", "frame", "triangle", "plus", "cross", "bars", "bow", "moon")
N_TEST = {"digits": 397, "shapes": 500}
CLASSES = {"digits": DIGITS, "shapes": SHAPES}

Drawn = tuple[np.ndarray, Int[Tensor, " n"], Int[Tensor, " n"]]
"""Pictures, uint8 ``(n, s, s, 3)``, their classes and their colours."""


def digits(seed: int) -> Drawn:
    """scikit-learn's, of 16 pixels on black, each tinted by chance."""
    found, rng = load_digits(), np.random.default_rng(seed)
    order = rng.permutation(len(found.target))
    colour = rng.integers(len(COLOURS), size=len(order))
    grey = np.kron(found.images[order] / 16, np.ones((2, 2)))[..., None]
    shown = grey * np.array(list(COLOURS.values()))[colour][:, None, None] + rng.normal(0, 0.02, (*grey.shape[:3], 3))
    pixels = np.rint(255 * shown.clip(0, 1)).astype(np.uint8)
    return pixels, torch.from_numpy(found.target[order]), torch.from_numpy(colour)


def shapes(seed: int, n: int = 3500) -> Drawn:
    """Shapes of 16 pixels, of any tint, size and place, on a dark cloudy texture of another one."""
    rng = np.random.default_rng(seed)
    label, colour = rng.integers(len(SHAPES), size=n), rng.integers(len(COLOURS), size=n)
    tints = np.array(list(COLOURS.values()))
    pictures = []
    for kind, tint in zip(label, colour, strict=True):
        cells = rng.uniform(0, 110, (5, 5)).astype(np.uint8)
        cloud = np.asarray(Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) / 255
        ground = cloud[..., None] * rng.uniform(0.3, 1.0, 3)
        mask = np.asarray(_mask(SHAPES[kind], rng), float)[..., None] / 255
        ink = (tints[tint] * rng.uniform(0.75, 1.0)).clip(0, 1)
        shown = ground * (1 - mask) + ink * mask + rng.normal(0, 0.02, (SIDE, SIDE, 3))
        pictures.append(np.rint(255 * shown.clip(0, 1)).astype(np.uint8))
    return np.stack(pictures), torch.from_numpy(label), torch.from_numpy(colour)


def _mask(shape: str, rng: np.random.Generator) -> Image.Image:
    """Where a shape covers the ground, drawn eight times as large."""
    big = 8 * SIDE
    r = rng.uniform(0.3, 0.42) * big
    x, y = big / 2 + rng.uniform(-0.08, 0.08, 2) * big
    w = 0.36 * r
    image = Image.new("L", (big, big))
    pen = ImageDraw.Draw(image)
    box, inner = (x - r, y - r, x + r, y + r), (x - r + w, y - r + w, x + r - w, y + r - w)
    if shape in ("disc", "ring", "moon"):
        pen.ellipse(box, fill=255)
    if shape in ("square", "frame"):
        pen.rectangle(box, fill=255)
    if shape == "ring":
        pen.ellipse(inner, fill=0)
    if shape == "frame":
        pen.rectangle(inner, fill=0)
    if shape == "moon":
        pen.ellipse((x - r / 3, y - r, x + 5 * r / 3, y + r), fill=0)
    if shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=255)
    if shape == "bow":
        pen.polygon([(x - r, y - r), (x - r, y + r), (x + r, y - r), (x + r, y + r)], fill=255)
    if shape == "plus":
        pen.rectangle((x - w / 1.3, y - r, x + w / 1.3, y + r), fill=255)
        pen.rectangle((x - r, y - w / 1.3, x + r, y + w / 1.3), fill=255)
    if shape == "cross":
        for a, b in (((x - r, y - r), (x + r, y + r)), ((x - r, y + r), (x + r, y - r))):
            pen.line([a, b], fill=255, width=round(1.3 * w))
    if shape == "bars":
        for i in (-1, 0, 1):
            pen.rectangle((x - r, y + 0.75 * i * r - w / 1.6, x + r, y + 0.75 * i * r + w / 1.6), fill=255)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


DRAWS = {"digits": digits, "shapes": shapes}


def convolutions() -> tuple[nn.Module, nn.Module]:
    """Trunk and code of what is climbed, which keeps where things are."""
    trunk = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
    return trunk, nn.Sequential(nn.Flatten(), nn.Linear(64 * 16, CODE), nn.ReLU())


def residual() -> tuple[nn.Module, nn.Module]:
    """Those of a judge: another architecture, pooled by the mean."""
    start = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU())
    return nn.Sequential(start, Residual(16, 32, 2), Residual(32, CODE, 2)), GlobalAverage()


def networks(kind: str, seed: int) -> dict[str, nn.Sequential]:
    """What is climbed, its judge, and both again for colours, not yet trained: trunk, head, layer."""
    made = {}
    for i, (name, halves, classes) in enumerate(plan(kind)):
        with seeded(1000 * seed + i):
            made[name] = nn.Sequential(*halves(), nn.Linear(CODE, len(classes)))
    return made


def plan(kind: str) -> tuple[tuple[str, Callable[[], tuple[nn.Module, nn.Module]], tuple[str, ...]], ...]:
    """Name, network and classes of each."""
    colours = tuple(COLOURS)
    return (
        ("climbed", convolutions, CLASSES[kind]),
        ("judge", residual, CLASSES[kind]),
        ("colours", convolutions, colours),
        ("colour_judge", residual, colours),
    )


def trained(made: dict[str, nn.Sequential], kind: str, drawn: Drawn, steps: int, seed: int) -> None:
    """In place, on all pictures but those held out."""
    pixels, n = scaled(drawn[0]), len(drawn[0]) - N_TEST[kind]
    for i, (name, network) in enumerate(made.items()):
        labels = drawn[1 + (name not in ("climbed", "judge"))][:n]
        data = TrainingData(n, {"pixels": pixels[:n], "labels": labels})
        train(Supervised(network), data, Training(steps, 32, lr=3e-3, seed=10 * seed + i))


def classifiers(
    made: dict[str, nn.Sequential], kind: str, drawn: Drawn
) -> tuple[dict[str, Classifier], dict[str, float]]:
    """As the product has them, and how often each is right on pictures held out."""
    pixels, n = scaled(drawn[0]), len(drawn[0]) - N_TEST[kind]
    found, right = {}, {}
    for name, _, classes in plan(kind):
        trunk, head, layer = freeze(made[name])
        found[name] = seewhy.pretrained(
            Encoder(
                name=name,
                transform=SEEN,
                trunk=lambda trunk=trunk: trunk,
                head=head,
                layout=Layout(),
                fingerprint=fingerprint(made[name], SEEN),
                classifier=layer,
                classes=classes,
                engine="torch",
            )
        )
        labels = drawn[1 + (name not in ("climbed", "judge"))][n:]
        right[name] = round(float((found[name].probabilities(pixels[n:]).argmax(1) == labels).float().mean()), 4)
    return found, right


def scaled(arrays: np.ndarray) -> Tensor:
    """Bytes → -1…1, channels second."""
    return (torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
