"""scikit-learn's digits on drawn textures: a digit of a chosen strength that augmentation drops now and then."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

SIDE, CANVAS, DIGIT = 32, 40, 16
"""Sides of a view, of the texture it is cut from, and of the digit, in pixels."""
N_TEST = 597
INKS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.25, 0.2], [0.2, 0.35, 1.0]])
"""White, red and blue."""


@dataclass(frozen=True, eq=False)
class Digits:
    """Pictures, the same ones in every draw of weights.

    Attributes:
        strokes: how much of each pixel the pen covers.
        textures: of each picture.
        digit: 0 to 9.
        ink: number of its colour.
        strength: of the digit over the texture.
    """

    strokes: Float[Tensor, "n d d"]
    textures: Float[Tensor, "n 3 c c"]
    digit: Int[Tensor, " n"]
    ink: Int[Tensor, " n"]
    strength: float

    def __len__(self) -> int:
        return len(self.digit)

    @property
    def odd(self) -> Int[Tensor, " n"]:
        return self.digit % 2

    def plain(self) -> Float[Tensor, "n 3 s s"]:
        """As they are: the middle, the digit on it."""
        middle = torch.full((len(self), 2), (CANVAS - SIDE) // 2)
        return self._drawn(torch.arange(len(self)), middle, torch.full((len(self), 2), 1), torch.ones(len(self)))

    def views(self, n: int, drop: float) -> Callable[[list[int], torch.Generator], tuple[Tensor, ...]]:
        """For a :class:`~seewhy.training.batches.TrainingData`: cuts of the texture in other colours, some mirrored.

        The digit stays upright, moves by a pixel, and is left out of a view with the probability ``drop``.
        """

        def made(index: list[int], draw: torch.Generator) -> tuple[Tensor, ...]:
            return tuple(self._view(torch.tensor(index), drop, draw) for _ in range(n))

        return made

    def _view(self, index: Tensor, drop: float, draw: torch.Generator) -> Tensor:
        n = len(index)
        corner = torch.randint(CANVAS - SIDE + 1, (n, 2), generator=draw)
        shift = torch.randint(3, (n, 2), generator=draw)
        there = (torch.rand(n, generator=draw) >= drop).float()
        mirrored = torch.rand(n, generator=draw) < 0.5
        gain = 0.7 + 0.6 * torch.rand(n, 3, 1, 1, generator=draw)
        return self._drawn(index, corner, shift, there, mirrored, gain)

    def _drawn(
        self, index: Tensor, corner: Tensor, shift: Tensor, there: Tensor, mirrored: Any = None, gain: Any = 1.0
    ) -> Float[Tensor, "b 3 s s"]:
        n, along = len(index), torch.arange(SIDE)
        rows, columns = corner[:, :1] + along, corner[:, 1:] + along
        ground = self.textures[index][torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None]]
        ground = ground.permute(0, 3, 1, 2) * gain
        if mirrored is not None:
            ground = torch.where(mirrored[:, None, None, None], ground.flip(3), ground)
        pen = torch.zeros(n, 1, SIDE, SIDE)
        start = (SIDE - DIGIT) // 2 - 1 + shift
        at = torch.arange(DIGIT)
        pen[torch.arange(n)[:, None, None], 0, (start[:, :1] + at)[:, :, None], (start[:, 1:] + at)[:, None]] = (
            self.strokes[index] * there[:, None, None]
        )
        pen = pen * self.strength
        return ((1 - pen) * ground + pen * INKS[self.ink[index]][:, :, None, None] - 0.5) / 0.25


def textures(n: int, seed: int) -> Float[Tensor, "n 3 c c"]:
    """Three waves of any direction, length and colour each, from 0 to 1.

    >>> made = textures(3, 0)
    >>> made.shape, bool((made >= 0).all() and (made <= 1).all())
    (torch.Size([3, 3, 40, 40]), True)
    """
    draw = torch.Generator().manual_seed(seed)
    angle, length, phase = (torch.rand(n, 3, 1, 1, generator=draw) for _ in range(3))
    colour = torch.rand(n, 3, 3, generator=draw)
    y, x = torch.meshgrid(torch.arange(CANVAS), torch.arange(CANVAS), indexing="ij")
    along = x * (math.pi * angle).cos() + y * (math.pi * angle).sin()
    waves = 0.5 + 0.5 * (2 * math.pi * (along / (4 + 12 * length) + phase)).sin()
    return torch.einsum("nwij,nwc->ncij", waves, colour) / 3


@cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    strokes = interpolate(torch.from_numpy(found.images).float()[:, None] / 16, (DIGIT, DIGIT), mode="bilinear")[:, 0]
    order = torch.randperm(len(strokes), generator=torch.Generator().manual_seed(7))
    return strokes[order], torch.from_numpy(found.target)[order].long()


def split(strength: float, agree: float | None = None, most: int | None = None) -> tuple[Digits, Digits]:
    """Pictures to learn from and to test on, always the same.

    Args:
        strength: of the digit.
        agree: how often red ink writes even digits and blue ink odd ones, of those to learn from; half of those to
            test on. Left out, all is white.
        most: pictures to learn from, for a try.
    """
    strokes, digit = _digits()
    ground = textures(len(digit), 11)
    ink = torch.zeros(len(digit), dtype=torch.long)
    if agree is not None:
        chance = torch.rand(len(digit), generator=torch.Generator().manual_seed(13))
        told = torch.where(torch.arange(len(digit)) < N_TEST, 0.5, agree)
        ink = 1 + torch.where(chance < told, digit % 2, 1 - digit % 2)
    rows = torch.arange(len(digit))
    learn = rows[N_TEST:] if most is None else rows[N_TEST : N_TEST + most]
    own, test = (Digits(strokes[r], ground[r], digit[r], ink[r], strength) for r in (learn, rows[:N_TEST]))
    return own, test
