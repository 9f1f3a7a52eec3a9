"""Encoding of pictures at a larger input size, with overlapping windows where needed."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..bounds import Bound, Checked
from ..encoders.base import Encoder, can_grow, larger
from ..errors import ImageError
from ..pictures.images import Picture, read_views, upright_size
from ..pictures.pixel_classes import MaskedPictures
from ..pictures.sources import name_of
from ..progress import Progress
from ..threads import each_beside, map_ahead
from ..types import Crop, Failure
from .cells import with_beside, with_levels

Zoom = Annotated[float, Bound(0.25, 32)]
LARGEST = 2.0
"""Largest input, as a multiple of the encoder's input size, that is not cut into windows."""
WHOLE = Crop((0.0, 0.0, 1.0, 1.0))
MOST_KEPT, AT_ONCE = 2**30, 8
"""Largest number of cached values (2 GB), and number of windows that are encoded together."""


@dataclass(frozen=True, eq=False)
class Reader(Checked):
    """An encoder for pictures of any size, optionally with a second trunk."""

    noun = "a reader of pictures"

    base: Encoder
    zoom: Zoom = LARGEST
    levels: int = 1
    kept: dict[str, Looked] | None = field(default=None, repr=False)
    beside: nn.Module | None = field(default=None, repr=False)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder at the size of a window."""
        grown = larger(self.base, min(self.zoom, LARGEST)) if can_grow(self.base) else self.base
        looks = with_levels(grown, self.levels)
        return looks if self.beside is None else with_beside(looks, self.beside)

    @property
    def along(self) -> int:
        """Return the number of windows along the short side of a picture."""
        return max(1, round(self.zoom / (min(self.zoom, LARGEST) if can_grow(self.base) else 1.0)))

    @cached_property
    def map_shape(self) -> tuple[int, int, int]:
        """Return the shape ``(c, h, w)`` of a window's feature map."""
        empty = torch.zeros(1, 3, *self.encoder.transform.input_size)
        _, c, h, w = self.encoder.layout.to_grid(self.encoder.forward_features(empty)).shape
        return c, h, w

    @property
    def cells(self) -> tuple[int, int]:
        """Return the height and width of a window's feature map."""
        return self.encoder.layout.grid or self.map_shape[1:]

    def windows(self, size: tuple[int, int]) -> Windows:
        n = tiling(size, self.along)
        return Windows((1, 1) if n == (1, 1) else self.cells, n)

    def looked(self, pictures: Iterable[Any]) -> Iterator[Looked | Failure]:
        """Encode many pictures, in order."""
        if self.kept is None:
            yield from self._look(pictures)
            return
        names = list(pictures)
        new = self._look([name for name in names if name not in self.kept])
        room = MOST_KEPT - sum(one.features.numel() for one in self.kept.values())
        for name in names:
            one = self.kept.get(name) or next(new)
            if isinstance(one, Looked):
                half = replace(one, features=one.features.half())
                if name not in self.kept and (room := room - half.features.numel()) >= 0:
                    self.kept[name] = half
                one = replace(one, features=half.features.float())
            yield one

    def _look(self, pictures: Iterable[Any]) -> Iterator[Looked | Failure]:
        at_once = max(1, AT_ONCE // self.along**2)
        _ = self.encoder.engine
        # At least as many pictures as threads wait decoded, so that the engine never does.
        stream = map_ahead(lambda one: self.cut(*one), enumerate(pictures, 1), 2 * at_once)
        while reads := list(islice(stream, at_once)):
            yield from each_beside(self.encoder.engine.name, self._looked(reads))

    def cut(self, number: int, source: Any) -> CutPicture | Failure:
        """Read a picture and cut it into windows."""
        name = name_of(source, number)
        try:
            size = upright_size(source, longest=LONGEST)
            windows = self.windows(size)
            crops = [WHOLE] if windows.n == (1, 1) else [*windows.crops(), WHOLE]
            views = read_views(source, self.encoder.transform, crops)
            return CutPicture(name, size, windows, views[: windows.n[0] * windows.n[1]], views[-1])
        except ImageError as error:
            return Failure(name, error.reason)

    def _looked(self, reads: list[CutPicture | Failure]) -> Generator[Looked | Failure, None, None]:
        pixels = [p.pixels for r in reads if isinstance(r, CutPicture) for p in r.seen]
        split = [pixels[i : i + AT_ONCE] for i in range(0, len(pixels), AT_ONCE)]
        parts = [self.encoder.forward_features(self.encoder.pixels(part)) for part in split]
        features = torch.cat(parts) if parts else torch.empty(0)
        first = 0
        for read in reads:
            if isinstance(read, Failure):
                yield read
                continue
            own = features[first : first + len(read.seen)]
            first += len(read.seen)
            if not bool(own.isfinite().all()):
                yield Failure(read.name, "the encoder's features of this picture are not finite; try --engine torch")
                continue
            windows = Windows(tuple(self.encoder.layout.to_grid(own).shape[2:]), read.windows.n)  # type: ignore[arg-type]
            yield Looked(read.name, read.size, windows, own, read.whole.pixels)

    def with_masks(
        self, data: MaskedPictures, progress: Progress, what: str
    ) -> Iterator[tuple[Looked, np.ndarray, dict[int, int]]]:
        """Yield each usable picture with its mask and the counts of unnamed pixel values."""
        looked = self.looked([item.image for item in data.items])
        for item, one in progress.results(data.items, looked, what):
            try:
                mask, unnamed = data.truth(item, one.size)
            except ImageError as error:
                progress.failed(Failure(error.path, error.reason))
                continue
            yield one, mask, unnamed

    def resolution(self, looked: Looked) -> tuple[int, int]:
        """Return the height and width of the output mask."""
        inputs, windows = self.encoder.transform.input_size, looked.windows
        most = (i * g // c for i, g, c in zip(inputs, windows.whole, windows.cells, strict=True))
        height, width = (min(n, m) for n, m in zip(looked.size[::-1], most, strict=True))
        return height, width


class CutPicture(NamedTuple):
    """A picture and its windows before encoding."""

    name: str
    size: tuple[int, int]
    windows: Windows
    seen: list[Picture]
    whole: Picture


@dataclass(frozen=True, eq=False)
class Looked:
    """An encoded picture."""

    name: str
    size: tuple[int, int]
    windows: Windows
    features: Tensor
    pixels: np.ndarray


ABSENT = -100.0
"""The cosine assigned to absent classes, as in MaskCLIP's released code."""
OVERLAP, STRETCH = 0.25, 1.5
"""Overlap of neighbouring windows, as a share of a window, and largest change of a window's aspect ratio."""
LONGEST, MOST, STRIP = 64, 512, 64
"""Largest aspect ratio of a picture, largest number of windows per picture, and rows per processing strip."""


def tiling(size: tuple[int, int], along: int) -> tuple[int, int]:
    """Return the number of windows down and across a picture, with ``along`` windows on its short side.

    >>> tiling((640, 480), 1), tiling((1920, 1080), 1), tiling((480, 640), 2)
    ((1, 1), (1, 2), (2, 2))
    """
    width, height = size
    short = 1 + (along - 1) * (1 - OVERLAP)
    needed = short * max(size) / min(size) / STRETCH
    longer = max(along, 1 + math.ceil((needed - 1) / (1 - OVERLAP) - 1e-9))
    if along > 1 and along * longer > MOST:
        return tiling(size, along - 1)
    return (longer, along) if height > width else (along, longer)


@dataclass(frozen=True)
class Windows:
    """The grid of overlapping windows of a picture."""

    cells: tuple[int, int]
    n: tuple[int, int]

    @property
    def strides(self) -> tuple[int, int]:
        """The distance between neighbouring windows, in grid cells."""
        down, across = (max(1, round(c * (1 - OVERLAP))) for c in self.cells)
        return down, across

    @property
    def whole(self) -> tuple[int, int]:
        """The height and width of the whole picture in grid cells."""
        h, w = (c + (n - 1) * s for c, n, s in zip(self.cells, self.n, self.strides, strict=True))
        return h, w

    def corners(self) -> list[tuple[int, int]]:
        """Return the top and left of each window in grid cells, row by row."""
        down, across = self.strides
        return [(i * down, j * across) for i in range(self.n[0]) for j in range(self.n[1])]

    def crops(self) -> list[Crop]:
        """Return the windows as fractions of the picture."""
        (high, wide), (h, w) = self.whole, self.cells
        return [Crop((x / wide, y / high, (x + w) / wide, (y + h) / high)) for y, x in self.corners()]

    def merged(self, maps: Float[Tensor, "n k h w"]) -> Float[Tensor, "k H W"]:
        """Merge the maps of the windows into one map of the picture, averaging overlaps."""
        if len(maps) == 1:
            return maps[0]
        times = maps.shape[2] // self.cells[0]
        (high, wide), (h, w) = ([times * n for n in size] for size in (self.whole, self.cells))
        total, count = maps.new_zeros(maps.shape[1], high, wide), maps.new_zeros(1, high, wide)
        for one, corner in zip(maps, self.corners(), strict=True):
            y, x = (times * n for n in corner)
            total[:, y : y + h, x : x + w] += one
            count[:, y : y + h, x : x + w] += 1
        return total / count


def bilinear(n: int, m: int) -> Float[Tensor, "m n"]:
    """Return the matrix that resizes ``n`` values to ``m``, like ``interpolate(align_corners=False)``."""
    return interpolate(torch.eye(n, dtype=torch.float64)[None], size=m, mode="linear")[0].T.float()


def best_classes(
    scores: Float[Tensor, "k h w"], size: tuple[int, int], scale: float = 1.0, *, alone: bool = False
) -> tuple[UInt8[Tensor, "y x"], Float[Tensor, "y x"]]:
    """Return the class of each pixel and its probability, from bilinearly interpolated scores."""
    height, width = size
    across = torch.einsum("khw,xw->khx", scores, bilinear(scores.shape[2], width).to(scores))
    down = bilinear(scores.shape[1], height).to(scores)
    best, likely = torch.empty(height, width, dtype=torch.uint8), torch.empty(height, width)
    for rows in torch.arange(height).split(STRIP):
        between = torch.einsum("khx,yh->kyx", across, down[rows])
        top, index = between.max(0)
        best[rows] = index.to(torch.uint8)
        likely[rows] = (scale * top).sigmoid() if alone else 1 / (scale * (between - top)).exp().sum(0)
    return best, likely


def box_means(grid: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n d"]:
    """Return the area-weighted mean of a map over each box."""
    d, h, w = grid.shape
    table = grid.new_zeros(d, h + 1, w + 1, dtype=torch.float64)
    table[:, 1:, 1:] = grid.double().cumsum(1).cumsum(2)

    def up_to(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "d n"]:
        """Interpolate the integral image."""
        col, row = x.floor().clamp(0, w - 1).long(), y.floor().clamp(0, h - 1).long()
        a, b = x - col, y - row
        upper = table[:, row, col] * (1 - a) + table[:, row, col + 1] * a
        lower = table[:, row + 1, col] * (1 - a) + table[:, row + 1, col + 1] * a
        return upper * (1 - b) + lower * b

    left, top, right, bottom = boxes.double().unbind(1)
    total = up_to(right, bottom) - up_to(left, bottom) - up_to(right, top) + up_to(left, top)
    return (total / ((right - left) * (bottom - top))).T.to(grid.dtype)


def shares(spans: Float[Tensor, "*i 2"], n: int) -> Float[Tensor, "*i n"]:
    """Return, for each of ``n`` grid cells, the fraction of each span that is inside the cell."""
    first = torch.arange(n)
    inside = torch.minimum(spans[..., 1:], first + 1.0) - torch.maximum(spans[..., :1], first.float())
    return inside.clamp(min=0) / (spans[..., 1:] - spans[..., :1])


def span_means(grid: Float[Tensor, "d h w"], x: Float[Tensor, "n 2"], y: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
    """Return the means of :func:`box_means`, computed by matrix products."""
    rows = torch.tensordot(shares(y, grid.shape[1]), grid, ([1], [1]))
    return torch.einsum("ndw,nw->nd", rows, shares(x, grid.shape[2]))
