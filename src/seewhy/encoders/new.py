"""Small encoders with words and without any training: ``new:resnet``, ``new:vit``, ``new:vit_swl``, of 96 pixels or as
in ``new:resnet/32``. First weights follow from a seed and this machine's torch; what is trained of them is kept whole.
"""

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
"""Of the pictures, in pixels."""
WIDTH = 256
"""Of the space of pictures and texts, and of the networks' last maps."""
TUNING_LR = 5e-4
"""CLIP's, for its smaller networks (Radford et al. 2021)."""
SMALL_SIDE = 64
"""Pictures below it are made coarser by half as much."""
SIDES = range(16, 513, 16)
"""That pictures may have."""
WINDOWS = 2
"""Windows along the map of ``new:vit_swl``, either way; the authors have 4 on maps of 64 cells."""
GLOBAL_EVERY = 3
"""Of this many layers one sees the whole map, as in the authors' smallest network."""


class Residual(nn.Module):
    """Two convolutions with a skip connection (He et al. 2015).

    The skip connection has a ``norm`` too; without one, maps are normalised independently of the other pictures of a
    batch.
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
    """A small transformer on patches of 8 pixels, of small pictures 4 (Dosovitskiy et al. 2021, arXiv:2010.11929).

    With windows, two of three layers attend within a window, so a map depends on where the windows' edges are;
    shifted-window learning takes that out (DITO, Kim et al. 2023, arXiv:2310.00161): ``norm((f_0(x) + f_s(x)) / 2)``,
    where ``f_s`` rolls the patches by ``-s`` down and ``s`` across before places are added, and back after the layers;
    patches rolled over the edge are not masked, as in the authors' code. Costs twice the layers. On a larger picture
    places are stretched, there are as many windows, and shifts grow with them.
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
                f"A map of {side // patch} x {side // patch} cells cannot be cut into {windows} x {windows} windows. "
                f"Expected a side that is a multiple of {patch * windows} pixels. Give another side."
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
    """A layer on ``n x n`` windows of each map, as if they were maps of their own."""
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
    """Make an encoder with random weights: ``"resnet"`` (1.2 million weights), ``"vit"`` (4.8 million) or
    ``"vit_swl"``, the same with shifted windows. Its text half is a transformer of two layers. A side may follow:
    ``"resnet/32"``.
    """
    kind, slash, said = name.partition("/")
    if kind not in TRUNKS:
        raise UnknownNameError("new encoder", kind, TRUNKS)
    side = int(said) if said.isascii() and said.isdecimal() and len(said) < 4 else SIDE * (not slash)
    if side not in SIDES:
        raise InputError(
            f"The encoder new:{name} was given the side {said!r}. Expected a multiple of 16 from {SIDES[0]} to "
            f"{SIDES[-1]} pixels. For example: new:{kind}/32"
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
    """Two layers on the vocabulary of the embedded sentence encoder."""

    def projection() -> nn.Module:
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.normal_(layer.weight, std=1 / math.sqrt(WIDTH))
        return layer

    module, tokens = _made(lambda: MiniLM(2, WIDTH, 4), 1), lambda texts: load_minilm().tokens(texts)
    n_cut = lambda texts: load_minilm().n_cut(texts)  # noqa: E731
    words = ClipText(f"{fingerprint}-words", 1 / 0.07, module, tokens, _made(projection, 2), n_cut=n_cut)
    words.tuning_lr = TUNING_LR
    return words
