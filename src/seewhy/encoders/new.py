"""Small image-text encoders with random weights, to be trained: ``new:resnet``, ``new:vit`` and ``new:vit_swl``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..errors import InputError, UnknownNameError
from ..seeded import seeded
from ..types import Transform
from .base import Encoder, GlobalAverage, Layout
from .minilm import MiniLM, load_minilm
from .split import freeze
from .text_tokens import ClipText

SIDE = 96
"""Default side of the pictures in pixels."""
WIDTH = 256
"""Number of channels of the last map, and dimension of the shared space."""
TUNING_LR = 5e-4
"""CLIP's learning rate for its smaller networks (Radford et al. 2021)."""
SMALL_SIDE = 64
"""Side in pixels below which pictures are downsampled half as much."""
SIDES = range(16, 513, 16)
"""Allowed sides of pictures in pixels."""
WINDOWS = 2
"""Number of windows per side of the map in ``new:vit_swl``; the authors have 4 on maps of 64 x 64."""
GLOBAL_EVERY = 3
"""Every third layer attends to the whole map, as in the authors' smallest network."""


class Residual(nn.Module):
    """Two convolutions with a skip connection (He et al. 2015).

    ``norm`` makes the normalisation layers. By default, ``norm`` is group norm, and the skip connection has no norm.
    """

    def __init__(self, n_in: int, n_out: int, stride: int, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        own = norm or partial(nn.GroupNorm, 8)
        first, second = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.inner = nn.Sequential(first, own(n_out), nn.ReLU(), second, own(n_out))
        round_them = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
        self.way_round = round_them if norm is None else nn.Sequential(round_them, norm(n_out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d gh gw"]:
        return (self.inner(x) + self.way_round(x)).relu()


class Patches(nn.Module):
    """A small vision transformer with patches of 8 or 4 pixels (Dosovitskiy et al. 2021, arXiv:2010.11929).

    With ``windows``, two of three layers attend within windows. Shifted-window learning (DITO, Kim et al. 2023,
    arXiv:2310.00161) reduces the effect of window edges by averaging two passes:

        norm((f_0(x) + f_s(x)) / 2)

    where ``x`` are the patches, and ``f_s`` rolls them by ``-s`` rows and ``s`` columns, adds positions, applies the
    layers and rolls the patches back. As in the authors' code, attention is not masked at patches that were rolled to
    the opposite side. For larger pictures, positions are interpolated and ``s`` grows in proportion.
    """

    def __init__(
        self,
        side: int = SIDE,
        depth: int = 6,
        n_heads: int = 4,
        *,
        width: int = WIDTH,
        windows: int = 1,
        shifts: tuple[int, ...] = (0,),
    ) -> None:
        super().__init__()
        patch = 4 if side < SMALL_SIDE else 8
        if (side // patch) % windows:
            raise InputError(
                f"`side` must be a multiple of {patch * windows} pixels for {windows} x {windows} windows, got {side}."
            )
        self.windows, self.shifts, self.side = windows, shifts, side // patch
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.places = nn.Parameter(torch.randn(1, (side // patch) ** 2, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, n_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        grid = self.patches(pixels)
        first, *others = (self._pass(grid, shift * grid.shape[2] // self.side) for shift in self.shifts)
        for other in others:
            first = first + other
        return self.norm(first / len(self.shifts)).permute(0, 3, 1, 2)

    def _pass(self, grid: Float[Tensor, "b c gh gw"], shift: int) -> Float[Tensor, "b gh gw c"]:
        size = (grid.shape[2], grid.shape[3])
        rolled = grid.roll((-shift, shift), (2, 3)) if shift else grid
        tokens = rolled.flatten(2).transpose(1, 2) + self._stretched(size)
        for i, layer in enumerate(self.layers.layers, 1):
            n = self.windows if i % GLOBAL_EVERY else 1
            tokens = layer(tokens) if n == 1 else _in_windows(layer, tokens, size, n)
        out = tokens.unflatten(1, size)
        return out.roll((shift, -shift), (1, 2)) if shift else out

    def _stretched(self, size: tuple[int, int]) -> Float[Tensor, "1 t c"]:
        if size == (self.side, self.side):
            return self.places
        own = self.places.transpose(1, 2).unflatten(2, (self.side, self.side))
        return interpolate(own, size=size, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


def _in_windows(layer: nn.Module, tokens: Float[Tensor, "b t c"], size: tuple[int, int], n: int) -> Tensor:
    """Apply a layer to ``n x n`` windows of each map."""
    high, wide, c = size[0] // n, size[1] // n, tokens.shape[2]
    cut = tokens.reshape(-1, n, high, n, wide, c).transpose(2, 3).reshape(-1, high * wide, c)
    return layer(cut).reshape(-1, n, n, high, wide, c).transpose(2, 3).reshape(-1, size[0] * size[1], c)


def _resnet(side: int) -> nn.Module:
    stride = 1 if side < SMALL_SIDE else 2
    start = nn.Sequential(nn.Conv2d(3, 32, 3, stride, 1, bias=False), nn.GroupNorm(8, 32), nn.ReLU())
    return nn.Sequential(start, *(Residual(a, b, 2) for a, b in pairwise((32, 64, 128, WIDTH))))


TRUNKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet": _resnet,
    "vit": Patches,
    # Windows, and a second pass that is shifted by half of one.
    "vit_swl": lambda side: Patches(
        side, windows=WINDOWS, shifts=(0, side // (4 if side < SMALL_SIDE else 8) // WINDOWS // 2)
    ),
}


def names() -> list[str]:
    return list(TRUNKS)


def load(name: str, *, engine: str = "auto") -> Encoder:
    """Make an encoder with random weights and a text encoder of two layers.

    Args:
        name: ``"resnet"`` (1.2 million weights), ``"vit"`` (4.8 million) or ``"vit_swl"`` (``"vit"`` with shifted
            windows); a side in pixels may follow, as in ``"resnet/32"``.
        engine: engine that runs the trunk.
    """
    kind, slash, said = name.partition("/")
    UnknownNameError.check("new encoder", kind, TRUNKS)
    side = int(said) if said.isascii() and said.isdecimal() and len(said) < 4 else SIDE * (not slash)
    if side not in SIDES:
        raise InputError(
            f"The number of pixels after the slash in new:{name} must be a multiple of 16 from {SIDES[0]} to "
            f"{SIDES[-1]}, got {said!r}. For example: new:{kind}/32"
        )
    name = kind if side == SIDE else f"{kind}/{side}"
    half, pool = (0.5, 0.5, 0.5), GlobalAverage()
    trunk = cache(lambda: _made(lambda: TRUNKS[kind](side), 0))
    return Encoder(
        name=f"new:{name}",
        transform=Transform((side, side), side, "bicubic", half, half),
        trunk=trunk,
        head=pool,
        layout=Layout(),
        fingerprint=f"new-{name}-1",
        text=cache(lambda: _words(f"new-{name}-1")),
        module=lambda: nn.Sequential(trunk(), pool),
        engine=engine,
    )


def _made(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with seeded(seed):
        return freeze(make())


def _words(fingerprint: str) -> ClipText:

    def projection() -> nn.Module:
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.normal_(layer.weight, std=1 / math.sqrt(WIDTH))
        return layer

    module, sentences = _made(lambda: MiniLM(2, WIDTH, 4), 1), load_minilm()
    words = ClipText(
        f"{fingerprint}-words", 1 / 0.07, module, sentences.tokens, _made(projection, 2), n_cut=sentences.n_cut
    )
    words.tuning_lr = TUNING_LR
    return words
