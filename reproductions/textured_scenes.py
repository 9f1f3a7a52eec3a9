"""Drawn scenes of textured things whose every pixel is known, and two views of pictures that are held in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

SIDE = 64
TEXTURES = ("level stripes", "upright stripes", "checks", "dots", "coarse checks")
"""Classes 1 to 5; 0 is the ground."""
N_CLASSES = 1 + len(TEXTURES)


def scenes(n: int, seed: int) -> tuple[UInt8[Tensor, "n 3 64 64"], Int[Tensor, "n 64 64"]]:
    """Pictures and their label maps: two to four things of any colours and shape on a ground of clouds.

    Example:
        >>> pictures, labels = scenes(2, seed=0)
        >>> pictures.shape, sorted(set(labels.flatten().tolist())) <= list(range(6))
        (torch.Size([2, 3, 64, 64]), True)
    """
    rng = np.random.default_rng([seed, 11])
    drawn = [_scene(rng) for _ in range(n)]
    return torch.stack([one for one, _ in drawn]), torch.stack([labels for _, labels in drawn])


def _scene(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    picture, labels = _coloured(_clouds(rng), rng), np.zeros((SIDE, SIDE), np.int64)
    for _ in range(int(rng.integers(2, 5))):
        label = int(rng.integers(1, N_CLASSES))
        inside = _shape(x, y, rng)
        texture = _coloured(_texture(TEXTURES[label - 1], x, y, rng), rng)
        picture = np.where(inside[..., None], texture, picture)
        labels[inside] = label
    grain = rng.normal(0, 8, picture.shape)
    made = (picture * 255 + grain).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(made).permute(2, 0, 1).contiguous(), torch.from_numpy(labels)


def _coloured(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Between two colours of its own, which can be told apart."""
    one, other = rng.uniform(0, 1, (2, 3))
    while abs(one - other).mean() < 0.3:
        one, other = rng.uniform(0, 1, (2, 3))
    return values[..., None] * one + (1 - values[..., None]) * other


def _clouds(rng: np.random.Generator) -> np.ndarray:
    coarse = torch.from_numpy(rng.uniform(0, 1, (1, 1, 5, 5)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=True)
    return fine[0, 0].clamp(0, 1).numpy()


def _shape(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A disc, a turned rectangle or a turned triangle."""
    (u, v), size = rng.uniform(10, SIDE - 10, 2), rng.uniform(10, 18)
    angle, kind = rng.uniform(0, math.pi), int(rng.integers(3))
    a = (x - u) * math.cos(angle) + (y - v) * math.sin(angle)
    b = (y - v) * math.cos(angle) - (x - u) * math.sin(angle)
    if kind == 0:
        return a**2 + b**2 < size**2
    if kind == 1:
        return (abs(a) < size) & (abs(b) < 0.7 * size)
    return (b > -0.6 * size) & (1.7 * abs(a) + b < 1.2 * size)


def _texture(name: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0 or 1 at each pixel, shifted and scaled by chance."""
    period, (du, dv) = rng.uniform(5, 7) * (2 if name.startswith("coarse") else 1), rng.uniform(0, SIDE, 2)
    a, b = (x - du) / period * 2 * math.pi, (y - dv) / period * 2 * math.pi
    made = {
        "level stripes": lambda: np.sin(b),
        "upright stripes": lambda: np.sin(a),
        "checks": lambda: np.sin(a) * np.sin(b),
        "dots": lambda: np.cos(a) + np.cos(b) - 0.9,
        "coarse checks": lambda: np.sin(a) * np.sin(b),
    }[name]()
    return (made > 0).astype(np.float32)


class Views:
    """Two crops of each picture with their boxes, mirrored half of the time, in other colours.

    Args:
        pictures: held in memory.
        side: of the crops.
        scale: smallest and largest area of a crop, as a part of the picture.
    """

    def __init__(self, pictures: UInt8[Tensor, "n 3 h w"], side: int, scale: tuple[float, float]) -> None:
        self.pictures, self.side, self.scale = pictures, side, scale
        self._made: tuple[int, tuple[Any, ...]] = (-1, ())

    def columns(self) -> dict[str, Callable[..., Any]]:
        """For a :class:`~seewhy.training.batches.TrainingData`."""
        return {name: partial(self._part, i) for i, name in enumerate(("views", "boxes", "flipped"))}

    def _part(self, which: int, index: list[int], draw: torch.Generator) -> Any:
        """All of them come of the same draw, which is the step's."""
        if self._made[0] != draw.initial_seed():
            self._made = draw.initial_seed(), self._drawn(index, draw)
        return self._made[1][which]

    def _drawn(self, index: list[int], draw: torch.Generator) -> tuple[Any, ...]:
        made = [self._view(index, draw) for _ in range(2)]
        views, boxes, flipped = zip(*made, strict=True)
        return views, torch.stack(boxes), torch.stack(flipped)

    def _view(
        self, index: list[int], draw: torch.Generator
    ) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 4"], Bool[Tensor, " b"]]:
        n = len(index)
        area, place, flipped = (torch.rand(n, k, generator=draw) for k in (2, 2, 1))
        low, high = self.scale
        ratio = ((2 * area[:, 1] - 1) * math.log(4 / 3)).exp().sqrt()
        root = (low + (high - low) * area[:, 0]).sqrt()
        size = torch.stack([root * ratio, root / ratio], 1).clamp(max=1.0)
        corner = place * (1 - size)
        mirrored = flipped[:, 0] < 0.5
        turn = torch.where(mirrored, -1.0, 1.0)
        middle, theta = 2 * corner + size - 1, torch.zeros(n, 2, 3)
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = size[:, 0] * turn, size[:, 1], middle
        grid = affine_grid(theta, [n, 3, self.side, self.side], align_corners=False)
        cut = grid_sample(self.pictures[index].float() / 255, grid, padding_mode="border", align_corners=False)
        return _recoloured(cut, draw), torch.cat([corner, corner + size], 1), mirrored


def _recoloured(views: Float[Tensor, "b 3 s s"], draw: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """Brightness of each channel, contrast, and now and then no colours at all; around 0."""
    gain, contrast, grey = (torch.rand(len(views), k, 1, 1, generator=draw) for k in (3, 1, 1))
    views = torch.where(grey < 0.2, views.mean(1, keepdim=True).expand_as(views), views)
    mean = views.mean((1, 2, 3), keepdim=True)
    return normalised(((views - mean) * (0.6 + 0.8 * contrast) + mean) * (0.6 + 0.8 * gain))


def normalised(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """From 0 to 1 → as the network takes them."""
    return (pictures - 0.5) / 0.25
