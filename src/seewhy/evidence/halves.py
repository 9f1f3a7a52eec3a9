"""Half of a picture is hidden, in several ways: what does each half change, and is there as much heat in it?

The halves are the twelve smoothest Walsh patterns of a picture of 4 × 4 fields, and their opposites. They are the same
for every picture, so nothing is left to luck; they are balanced, every field being seen as often as hidden; and a half
and its opposite together cancel what fields do in pairs. Any number of maps are compared with one set of looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, pad

from ..metrics.base import upsampled
from ..metrics.controls import centred_bump

SIDE = 4
_WALSH = ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, -1, 1), (1, -1, 1, -1))
_SMOOTHEST = 4
"""Changes of sign along both sides together, at most: more and the fields are finer than what heat maps tell apart."""


@cache
def patterns() -> Float[Tensor, "k s s"]:
    """1 where a half is seen, −1 where it is hidden."""
    walsh = torch.tensor(_WALSH, dtype=torch.float32)
    pairs = [(i, j) for i in range(SIDE) for j in range(SIDE) if 0 < i + j <= _SMOOTHEST]
    return torch.stack([torch.outer(walsh[i], walsh[j]) for i, j in pairs])


@cache
def masks(height: int, width: int) -> Float[Tensor, "n 1 h w"]:
    """1 where a picture is seen, 0 where it is hidden, edges softened; the halves, then their opposites."""
    both = torch.cat([patterns(), -patterns()])[:, None]
    half = max(1, min(height, width) // 32)
    full = interpolate((both + 1) / 2, size=(height, width), mode="nearest-exact")
    return avg_pool2d(pad(full, (half, half, half, half), mode="replicate"), 2 * half + 1, 1)


@dataclass(frozen=True)
class Match:
    """How well a map's heat goes with what hiding does.

    Attributes:
        value: cosine, over the halves, between the heat in each less that in its opposite, and the log-odds when it
            is seen less those when its opposite is; −1…1, on average 0 for a map that knows nothing.
        centre: the same of a bump in the middle, which looks at no picture.
    """

    value: float
    centre: float


def match(odds: Float[Tensor, " n"], maps: Float[Tensor, "m gh gw"], size: tuple[int, int]) -> tuple[Match, ...]:
    """Each map against what was found on the masked pictures.

    Args:
        odds: their logarithm, of what is explained, on the picture under each of :func:`masks`.
        maps: signed.
        size: of the picture.
    """
    first, last = odds.double().chunk(2)
    heat = torch.cat([upsampled(maps, size), centred_bump(*size)[None]]).double()
    in_halves = torch.einsum("khw,mhw->mk", patterns().double(), adaptive_avg_pool2d(heat, SIDE))
    *values, centre = (_cosine(one, first - last) for one in in_halves)
    return tuple(Match(value, centre) for value in values)


def _cosine(a: Float[Tensor, " k"], b: Float[Tensor, " k"]) -> float:
    """0 where one of them is rounding: a constant map, or a model that nothing changes."""
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 1e-9 else 0.0
