"""Planted evidence: pictures whose evidence is known, models that provably read nothing else, and a score for methods.

Every picture is a coloured texture that stays below a level in all channels, with symbols that rise above it in one.
The models see of a channel only what rises above the level, so nothing but a symbol has any influence, and its
gradient elsewhere is exactly zero. What they read is therefore not an opinion:

- ``copies``: two symbols of the target's colour. Both are the evidence; finding one is a hit.
- ``shortcut``: a large grey object, which no class knows, and a small coloured watermark, which decides.
- ``part``: two classes share a body and differ in a part; what is explained is the lead of one over the other.
- ``region``: four symbols of one colour, of which the model reads the one in its own quadrant alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu, scaled_dot_product_attention

from seewhy.attributions import Attribution, attributions
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.split import LastBlock
from seewhy.errors import InputError
from seewhy.heads.head import Target
from seewhy.types import Transform

SIDE = 64
SYMBOL = 16
PATCH = 8
LEVEL = 0.65
KINDS = ("copies", "shortcut", "part", "region")
CLASSES = ("red", "green", "blue")
TRANSFORM = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PLACES = tuple((row, column) for row in range(0, SIDE, SYMBOL) for column in range(0, SIDE, SYMBOL))
QUADRANT = 3
"""The quadrant that the region models read: lower right."""


@dataclass(frozen=True)
class Planted:
    """One picture and what is known of it.

    Attributes:
        pixels: ``(h, w, 3)``, uint8.
        mask: where the evidence lies.
        target: the class it speaks for.
        against: the class it is told apart from, if that is the question.
    """

    pixels: np.ndarray
    mask: Bool[np.ndarray, "h w"]
    target: int
    against: int | None = None


def plant(kind: str, seed: int) -> Planted:
    """One picture of a kind; the same for the same seed, on every machine."""
    if kind not in KINDS:
        raise InputError(f"There is no planted evidence called {kind!r}. One of {', '.join(KINDS)} was expected.")
    rng = np.random.default_rng([KINDS.index(kind), seed])
    canvas = _texture(rng)
    mask = np.zeros((SIDE, SIDE), bool)
    target, other = (int(c) for c in rng.permutation(3)[:2])
    places = [PLACES[i] for i in rng.permutation(len(PLACES))]
    against: int | None = None
    if kind == "copies":
        for place in places[:2]:
            _draw(canvas, place, target, _symbol(rng), mask)
    elif kind == "shortcut":
        row, column = rng.integers(0, SIDE // 2, 2)
        canvas[row : row + SIDE // 2, column : column + SIDE // 2] = 0.6  # bright, and below the level
        corner = ((SIDE - PATCH) * int(rng.integers(2)), (SIDE - PATCH) * int(rng.integers(2)))
        _draw(canvas, corner, target, np.ones((PATCH, PATCH), bool), mask)
    elif kind == "part":
        shared = ({0, 1, 2} - {target, other}).pop()
        for place in places[:2]:
            _draw(canvas, place, shared, _symbol(rng), None)
        _draw(canvas, places[2], target, _symbol(rng), mask)
        against = other
    else:
        for quadrant in range(4):
            row, column = 32 * (quadrant // 2), 32 * (quadrant % 2)
            place = (row + SYMBOL * int(rng.integers(2)), column + SYMBOL * int(rng.integers(2)))
            _draw(canvas, place, target, _symbol(rng), mask if quadrant == QUADRANT else None)
    return Planted((canvas * 255).round().astype(np.uint8), mask, target, against)


def _texture(rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Waves and noise between 0.1 and 0.6, below the level in every channel."""
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = np.sin(y / rng.uniform(2, 6) + rng.uniform(0, 6)) * np.cos(x / rng.uniform(2, 6) + rng.uniform(0, 6))
    tint = rng.uniform(0.25, 0.45, 3)
    return (tint + 0.12 * waves[..., None] + rng.normal(0, 0.03, (SIDE, SIDE, 3))).clip(0.1, 0.6)


def _symbol(rng: np.random.Generator) -> Bool[np.ndarray, "s s"]:
    """A disc, a cross, a ring or a diamond."""
    y, x = np.mgrid[:SYMBOL, :SYMBOL] - (SYMBOL - 1) / 2
    shapes = (
        x**2 + y**2 < 56,
        (abs(x) < 3) | (abs(y) < 3),
        (x**2 + y**2 < 60) & (x**2 + y**2 > 12),
        abs(x) + abs(y) < 8.5,
    )
    return shapes[int(rng.integers(len(shapes)))]


def _draw(
    canvas: Float[np.ndarray, "h w 3"],
    place: tuple[int, int],
    channel: int,
    shape: Bool[np.ndarray, "s s"],
    mask: Bool[np.ndarray, "h w"] | None,
) -> None:
    """The symbol, and its square in the mask."""
    window = np.s_[place[0] : place[0] + len(shape), place[1] : place[1] + len(shape)]
    canvas[(*window, channel)][shape] = 0.95
    if mask is not None:
        mask[window] = True


class Above(nn.Module):
    """What rises above the level, channel by channel, averaged over squares."""

    level: Tensor

    def __init__(self, square: int) -> None:
        super().__init__()
        self.square = square
        self.register_buffer("level", torch.tensor((LEVEL - 0.5) / 0.25))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 gh gw"]:
        return avg_pool2d(relu(pixels - self.level), self.square)


def quadrant_mask(cells: int) -> Float[Tensor, "g g"]:
    """One in the cells of the quadrant that is read."""
    half = cells // 2
    mask = torch.zeros(cells, cells)
    mask[half * (QUADRANT // 2) :, half * (QUADRANT % 2) :][:half, :half] = 1
    return mask


class QuadrantAverage(nn.Module):
    """The mean over one quadrant alone."""

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return (features * quadrant_mask(features.shape[2])).mean((2, 3))


class Tokens(nn.Module):
    """A class token of zeros, then the patches' evidence; the first of two blocks attends evenly and writes nothing."""

    def __init__(self, quadrant: bool) -> None:
        super().__init__()
        self.above = Above(PATCH)
        self.quadrant = quadrant

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t 3"]:
        evidence = self.above(pixels)
        if self.quadrant:
            evidence = evidence * quadrant_mask(evidence.shape[2])
        tokens = torch.cat([torch.zeros(len(pixels), 1, 3), evidence.flatten(2).transpose(1, 2)], 1)
        nothing = torch.zeros_like(tokens)[:, None]
        return tokens + scaled_dot_product_attention(nothing, nothing, nothing)[:, 0]


class ClassAttention(nn.Module):
    """Tokens attend to whatever has evidence of any class, and the class token gathers it, one head a class."""

    def forward(self, tokens: Float[Tensor, "b t 3"]) -> Float[Tensor, "b t 3"]:
        value = tokens.transpose(1, 2)[..., None]
        key = 4 * tokens.sum(2)[:, None, :, None].expand_as(value)
        return tokens + scaled_dot_product_attention(torch.ones_like(key), key, value, scale=1.0)[..., 0].transpose(
            1, 2
        )


class FirstToken(nn.Module):
    """The class token."""

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        return tokens[:, 0]


@cache
def reader(architecture: str, region: bool) -> Classifier:
    """``"cnn"`` or ``"transformer"``: reads what rises above the level, with ``region`` in one quadrant alone."""
    trunk: nn.Module
    head: nn.Module
    if architecture == "cnn":
        trunk, head, layout, gain = Above(4), QuadrantAverage() if region else GlobalAverage(), Layout(), 60.0
    else:
        side = SIDE // PATCH
        trunk, head = Tokens(region), LastBlock(ClassAttention(), FirstToken())
        layout, gain = Layout("tokens", (side, side), 1), 8.0
    last = nn.Linear(3, 3, bias=False)
    last.weight.data = gain * torch.eye(3)
    name = f"planted {architecture}{' region' if region else ''}"
    encoder = Encoder(
        name=name,
        transform=TRANSFORM,
        trunk=lambda: trunk,
        head=head,
        layout=layout,
        fingerprint=name,
        classifier=last.requires_grad_(False),
        classes=CLASSES,
        engine="torch",
    )
    return Pretrained().build(encoder)


ROUNDING = 1e-5
"""Part of a map's largest number by which equal values may differ after some layers in 32 bits."""


def hit_and_energy(heat: Float[Tensor, "gh gw"], mask: Bool[Tensor, "h w"]) -> tuple[float, float]:
    """Pointing game and energy-based pointing game.

    The hit is the part of the hottest pixels that lies in the mask: a tie, as in a cell of a coarse map or in a map
    of one value, counts for its chance. Values that differ by rounding alone are a tie, for which of them is the larger
    hangs on the processor. The energy is the part of what is positive; of a map without any, the
    chance. A coarse map is enlarged without blurring.
    """
    full = interpolate(heat[None, None].float(), size=mask.shape, mode="nearest-exact")[0, 0]
    hottest = full >= full.max() - ROUNDING * full.abs().max()
    positive = full.clamp(min=0)
    chance = float(mask.float().mean())
    energy = float(positive[mask].sum() / positive.sum()) if bool(positive.sum() > 0) else chance
    return float((hottest & mask).sum() / hottest.sum()), energy


@dataclass(frozen=True)
class Score:
    """How a method does on one kind of evidence in one kind of model.

    Attributes:
        method: registered name.
        architecture: ``"cnn"`` or ``"transformer"``.
        kind: of evidence.
        n: pictures.
        hit_rate: pointing game.
        energy: energy-based pointing game.
        chance: the mask's part of the picture: what a uniform map scores in both.
    """

    method: str
    architecture: str
    kind: str
    n: int
    hit_rate: float
    energy: float
    chance: float

    @property
    def fails(self) -> bool:
        """Points elsewhere in more than one picture of ten."""
        return self.hit_rate < 0.9


def score(method: Attribution, architecture: str, kind: str, n: int = 10, seed: int = 0) -> Score | None:
    """One method on ``n`` pictures of a kind; ``None`` where it refuses the model."""
    model = reader(architecture, kind == "region")
    pictures = [plant(kind, seed + i) for i in range(n)]
    look = model.encoder.encode(model.encoder.pixels([p.pixels for p in pictures]))
    against = None if pictures[0].against is None else torch.tensor([p.against for p in pictures])
    target = Target(torch.tensor([p.target for p in pictures]), against)
    try:
        heats = method(model, look, target)
    except InputError:
        return None
    masks = [torch.from_numpy(p.mask) for p in pictures]
    hits, energies = zip(*map(hit_and_energy, heats, masks), strict=True)
    chance = mean(float(mask.float().mean()) for mask in masks)
    return Score(method.name, architecture, kind, n, round(mean(hits), 3), round(mean(energies), 3), round(chance, 3))


def score_methods(
    names: Iterable[str] | None = None,
    n: int = 10,
    seed: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Score]:
    """Every registered attribution (or those named) on every kind of evidence."""
    found = []
    for name in attributions if names is None else names:
        method = attributions[name](**(settings or {}).get(name, {}))
        for architecture in ("cnn", "transformer"):
            found += [s for kind in KINDS if (s := score(method, architecture, kind, n, seed)) is not None]
    return found
