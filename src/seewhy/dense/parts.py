"""The score of a box or segment as a classifier of the grid cells inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..encoders.base import Encoder, GlobalAverage, Layout, TextTower
from ..errors import InputError
from ..explanation.part import PartBox
from ..heads.head import Head
from ..pictures.images import Picture, read_views, upright_size
from ..types import Transform
from .reader import LONGEST, WHOLE, Reader, Windows, shares

NOTHING = "nothing"
"""Class name of a box that contains no object."""
FINEST, SHOWN, AT_ONCE = 2048, 224, 8
"""Longest side of a picture read for display, smallest side of a displayed crop, both in pixels, and batch size in
windows.
"""
Boxes = Float[Tensor, "n 4"]
Logits = Float[Tensor, "b k"]


@dataclass(frozen=True, eq=False)
class PooledScore:
    """The score of a box or segment, computed from the grid cells inside it.

        logits = head(mean_region(z) - centred * mean_picture(z))

    - ``z``: the embeddings of the grid cells.
    - ``mean_region``: the mean over the grid cells inside; ``mean_picture``: the mean over all grid cells.

    With ``pieces``, the means over several pieces of a box replace the mean over the box. If ``reads`` is given, a
    network computes the logits, and only attribution methods that change pixels can explain the logits.
    """

    reader: Reader
    method: str
    classes: tuple[str, ...]
    cells: Callable[[Encoder, Tensor], Float[Tensor, "b d h w"]] = field(repr=False)
    head: Head = field(repr=False)
    words: Literal["joint", "own"] | None = None
    centred: float = 0.0
    pieces: Callable[[Boxes, tuple[int, int]], list[Boxes]] | None = field(default=None, repr=False)
    head_of: Callable[[Boxes, tuple[int, int]], Head] | None = field(default=None, repr=False)
    reads: Callable[[Tensor, Boxes], Callable[[Tensor], Logits]] | None = field(default=None, repr=False)
    parameters: dict[str, Any] = field(default_factory=dict, repr=False)
    trained_on: str = "nothing but the names of the classes"

    def text(self, shift: Callable[[], Tensor]) -> Callable[[], TextTower] | None:
        """Return a text encoder for the pooled embedding, or ``None``."""
        base = self.reader.base
        if not base.has_text or self.words is None or (self.words == "own" and not base.is_average):
            return None
        return (lambda: AmongWords(base.text, shift())) if self.words == "joint" else (lambda: base.text)


class AmongWords:
    """A text encoder for pooled vectors that are already image-text embeddings."""

    def __init__(self, of: TextTower, shift: Float[Tensor, " d"] | float = 0.0) -> None:
        self.of, self.shift = of, shift
        self.fingerprint, self.logit_scale, self.templates = of.fingerprint, of.logit_scale, of.templates

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.of.encode_text(texts)

    def project(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return pooled + self.shift


def rest_names(names: Sequence[str], rest: Sequence[str]) -> tuple[str, ...]:
    """Return background names; names that are also names to find are changed.

    >>> rest_names(("stamp", "background"), ("background", "table"))
    ('background (the rest)', 'table')
    """
    return tuple(f"{one} (the rest)" if one in names else one for one in rest)


class WholePicture:
    """A picture, and the grid cells of changed copies of it."""

    def __init__(self, score: PooledScore, source: Any) -> None:
        looks, encoder = score.reader, score.reader.encoder
        self.score = score
        self.size = upright_size(source, longest=LONGEST)
        self.looked = self.windows = Windows(looks.cells, looks.windows(self.size).n)
        self.step = tuple(i / c for i, c in zip(encoder.transform.input_size, looks.cells, strict=True))
        height, width = (
            i + round((w - c) * s)
            for i, w, c, s in zip(encoder.transform.input_size, self.windows.whole, looks.cells, self.step, strict=True)
        )
        transform = replace(encoder.transform, input_size=(height, width), resize=(height, width))
        self.picture = read_views(source, transform, [WHOLE])[0]
        self.pixels = encoder.pixels([self.picture.pixels])[0]
        # What scores may read a finer map than the trunk's last one.
        grid = self._parts(self.pixels[None]).shape[2:]
        self.windows = Windows((grid[0], grid[1]), self.looked.n)
        self.step = height / self.windows.whole[0], width / self.windows.whole[1]
        scale = min(1.0, FINEST / max(self.size))
        shown = max(1, round(self.size[1] * scale)), max(1, round(self.size[0] * scale))
        self.shown = read_views(source, Transform(shown, shown, "bicubic", (0.5,) * 3, (0.5,) * 3), [WHOLE])[0].pixels

    def cells(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d gh gw"]:
        """Return the centred grid cells of copies of the picture."""
        found = self._cells(pixels)
        return found - self.score.centred * found.mean((2, 3), keepdim=True)

    def _cells(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d gh gw"]:
        cells = self._parts(pixels).unflatten(0, (len(pixels), -1))
        return torch.stack([self.windows.merged(one) for one in cells])

    @torch.no_grad()
    def _parts(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "n d gh gw"]:
        encoder = self.score.reader.encoder
        (high, wide), (height, width) = self.looked.cells, encoder.transform.input_size
        corners = [(round(y * height / high), round(x * width / wide)) for y, x in self.looked.corners()]
        cut = torch.stack([one[:, y : y + height, x : x + width] for one in pixels for y, x in corners])
        return torch.cat([self.score.cells(encoder, encoder.forward_features(some)) for some in cut.split(AT_ONCE)])

    @cached_property
    def own_cells(self) -> Float[Tensor, "1 d gh gw"]:
        return self.cells(self.pixels[None])

    @cached_property
    def taken_off(self) -> Float[Tensor, " d"]:
        """The vector that is subtracted from each grid cell."""
        return self.score.centred * self._cells(self.pixels[None]).mean((0, 2, 3))

    def small(self, side: int = 448) -> np.ndarray:
        image = Image.fromarray(self.shown)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return np.asarray(image)


@dataclass(frozen=True, eq=False)
class PartPlace:
    """The position of a box or segment in pixels and grid cells."""

    cells: tuple[int, int, int, int]
    pixels: tuple[int, int, int, int]
    weights: Float[Tensor, "p h w"]
    head: Head
    inside: Bool[Tensor, "H W"]
    reads: Callable[[Tensor], Tensor] | None = None

    @torch.no_grad()
    def cut(self, cells: Float[Tensor, "b d H W"]) -> Float[Tensor, "b pd gh gw"]:
        """Return the weighted grid cells of the box or segment."""
        if self.reads is not None:
            return self.reads(cells)[:, :, None, None]
        top, bottom, left, right = self.cells
        return (cells[:, None, :, top:bottom, left:right] * self.weights[:, None]).flatten(1, 2)


def place_of(whole: WholePicture, box: PartBox, mask: np.ndarray | None) -> PartPlace:
    grid, size, score = whole.windows.whole, (whole.pixels.shape[1], whole.pixels.shape[2]), whole.score
    head, reads = score.head, None
    if mask is None:
        spans = [(box[i] / whole.size[i], box[i + 2] / whole.size[i]) for i in (1, 0)]
        rows, columns = (_within(a, b, n) for (a, b), n in zip(spans, size, strict=True))
        inside = rows[:, None] & columns[None]
        (y0, y1), (x0, x1) = ((a * n, b * n) for (a, b), n in zip(spans, grid, strict=True))
        own = torch.tensor([[x0, y0, x1, y1]])
        pieces = [own] if score.pieces is None else score.pieces(own, grid)
        covered = torch.stack([torch.outer(shares(p[0, 1::2], grid[0]), shares(p[0, ::2], grid[1])) for p in pieces])
        head = head if score.head_of is None else score.head_of(own, grid)
        if score.reads is not None:
            reads = score.reads(whole.own_cells, own / torch.tensor([grid[1], grid[0]] * 2))
    else:
        given = torch.from_numpy(np.ascontiguousarray(mask))[None, None].float()
        covered = interpolate(given, grid, mode="area")[0]
        inside = interpolate(given, size, mode="nearest-exact")[0, 0] > 0
    down, across = (covered.sum((0, d)).nonzero()[:, 0].tolist() for d in (2, 1))
    top, bottom, left, right = down[0], down[-1] + 1, across[0], across[-1] + 1
    weights = covered[:, top:bottom, left:right]
    ends = zip((top, bottom, left, right), (0, 0, 1, 1), strict=True)
    y0, y1, x0, x1 = (min(round(v * whole.step[axis]), size[axis]) for v, axis in ends)
    weights = weights / weights.mean((1, 2), True)
    return PartPlace((top, bottom, left, right), (y0, y1, x0, x1), weights, head, inside, reads)


def _within(start: float, stop: float, n: int) -> Bool[Tensor, " n"]:
    """Return a mask of the ``n`` pixels between two fractions, with at least one pixel."""
    middle = (torch.arange(n) + 0.5) / n
    found = (middle >= start) & (middle < stop)
    found[min(int((start + stop) / 2 * n), n - 1)] = True
    return found


class PartEngine:
    """An engine that pastes a crop into the picture and returns the grid cells inside it."""

    def __init__(self, whole: WholePicture, place: PartPlace, *, anywhere: bool = False) -> None:
        own = whole.score.reader.encoder.engine
        self.whole, self.place, self.anywhere = whole, place, anywhere
        self.name, self.precision = own.name, own.precision

    def __call__(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d gh gw"]:
        """Return the grid cells of the box or segment after its pixels are replaced."""
        if self.anywhere:
            return self.place.cut(self.whole.cells(pixels))
        top, bottom, left, right = self.place.pixels
        copies = self.whole.pixels.repeat(len(pixels), 1, 1, 1)
        own, inside = copies[:, :, top:bottom, left:right], self.place.inside[top:bottom, left:right]
        copies[:, :, top:bottom, left:right] = torch.where(inside, pixels, own)
        return self.place.cut(self.whole.cells(copies))


def part_encoder(engine: PartEngine) -> Encoder:
    """Return an encoder whose input is the crop of a box or segment."""
    score, base = engine.whole.score, engine.whole.score.reader.encoder
    top, bottom, left, right = engine.place.pixels
    size = (bottom - top, right - left)
    return Encoder(
        name=base.name,
        transform=replace(base.transform, input_size=size, resize=size),
        trunk=_no_trunk,
        head=GlobalAverage(),
        layout=Layout(),
        fingerprint=base.fingerprint,
        text=score.text(lambda: engine.whole.taken_off),
        engine=lambda: engine,
    )


def _no_trunk() -> NoReturn:
    raise InputError(
        "A method that reads inner layers cannot explain a box or segment. Choose grad_cam, occlusion or rise."
    )


def part_picture(whole: WholePicture, place: PartPlace) -> tuple[Picture, np.ndarray, PartBox]:
    """Return the input crop, the displayed crop, and the position of the box or segment."""
    top, bottom, left, right = place.pixels
    (height, width), (wide, high) = whole.pixels.shape[1:], whole.size
    frame = (left / width * wide, top / height * high, right / width * wide, bottom / height * high)
    seen = whole.picture.pixels[top:bottom, left:right]
    name, digest = whole.picture.name, whole.picture.digest
    picture = Picture(name, np.ascontiguousarray(seen), whole.size, frame, digest)
    scale = whole.shown.shape[1] / wide
    x0, y0, x1, y1 = (round(v * scale) for v in frame)
    image = Image.fromarray(whole.shown[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    if max(image.size) < SHOWN:
        larger = SHOWN / max(image.size)
        across, down = (max(1, round(v * larger)) for v in image.size)
        image = image.resize((across, down), Image.Resampling.BICUBIC)
    return picture, np.asarray(image), frame
