"""The reader of pictures: an encoder at a larger input, with overlapping windows where needed."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..bounds import Bound, check_fields
from ..encoders.base import Encoder, can_grow, larger
from ..errors import ImageError
from ..pictures.images import Picture, read_views, upright_size
from ..pictures.pixel_classes import MaskedPictures
from ..pictures.sources import name_of
from ..progress import Progress
from ..threads import each_beside
from ..types import Crop, Failure
from .cells import with_beside, with_levels

Zoom = Annotated[float, Bound(0.25, 32)]
LARGEST = 2.0
"""Inputs larger than this many times the encoder's own are cut into tiles."""
WHOLE = Crop((0.0, 0.0, 1.0, 1.0))
MOST_KEPT = 2**30
"""Most numbers stored of pictures, 2 GB; further pictures are encoded again."""


@dataclass(frozen=True, eq=False)
class Reader:
    """Encodes pictures once, at any size; the channels of a second trunk, ``beside``, follow the first's."""

    base: Encoder
    zoom: Zoom = LARGEST
    levels: int = 1
    kept: dict[str, Looked] | None = field(default=None, repr=False)
    beside: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, "A reader of pictures")

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, at the size of a window."""
        grown = larger(self.base, min(self.zoom, LARGEST)) if can_grow(self.base) else self.base
        looks = with_levels(grown, self.levels)
        return looks if self.beside is None else with_beside(looks, self.beside)

    @property
    def along(self) -> int:
        """Return the number of windows along the short side of a picture."""
        return max(1, round(self.zoom / (min(self.zoom, LARGEST) if can_grow(self.base) else 1.0)))

    @cached_property
    def map_shape(self) -> tuple[int, int, int]:
        """Return ``(c, h, w)`` of a window's map, from one pass over an empty window."""
        empty = torch.zeros(1, 3, *self.encoder.transform.input_size)
        _, c, h, w = self.encoder.layout.to_grid(self.encoder.forward_features(empty)).shape
        return c, h, w

    @property
    def cells(self) -> tuple[int, int]:
        """Return ``(h, w)`` of a window's map."""
        return self.encoder.layout.grid or self.map_shape[1:]

    def windows(self, size: tuple[int, int]) -> Windows:
        """Return the windows of a picture of this width and height."""
        one = Windows.over(size, (1, 1), self.along)
        return one if one.n == (1, 1) else Windows(self.cells, one.n)

    def keeping(self) -> Reader:
        """Return the same reader, which encodes each file once and stores the result."""
        return replace(self, kept={})

    def looked(self, pictures: Iterable[Any], *, batch_size: int = 8) -> Iterator[Looked | Failure]:
        """Encode many pictures, in order; decoding runs ahead in threads."""
        if self.kept is None:
            yield from self._look(pictures, batch_size)
            return
        names = list(pictures)
        new = self._look([name for name in names if name not in self.kept], batch_size)
        room = MOST_KEPT - sum(one.features.numel() for one in self.kept.values())
        for name in names:
            one = self.kept.get(name) or next(new)
            if isinstance(one, Looked):
                half = replace(one, features=one.features.half())
                if name not in self.kept and (room := room - half.features.numel()) >= 0:
                    self.kept[name] = half
                one = replace(one, features=half.features.float())
            yield one

    def _look(self, pictures: Iterable[Any], batch_size: int) -> Iterator[Looked | Failure]:
        numbered, at_once = enumerate(pictures, 1), max(1, batch_size // self.along**2)
        # At least as many pictures as threads wait decoded, so that the engine never does.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            ahead: list[Future[CutPicture | Failure]] = []

            def submit(n: int) -> None:
                ahead.extend(pool.submit(self.cut, i, one) for i, one in islice(numbered, n))

            _ = self.encoder.engine
            submit(2 * at_once)
            while ahead:
                reads = [future.result() for future in ahead[:at_once]]
                del ahead[:at_once]
                submit(at_once)
                yield from each_beside(self.encoder.engine.name, self._looked(reads, batch_size))

    def cut(self, number: int, source: Any) -> CutPicture | Failure:
        """Cut a picture into its windows, before encoding."""
        name = name_of(source, number)
        try:
            size = upright_size(source, longest=LONGEST)
            windows = self.windows(size)
            crops = [WHOLE] if windows.n == (1, 1) else [*windows.crops(), WHOLE]
            views = read_views(source, self.encoder.transform, crops)
            return CutPicture(name, size, windows, views[: windows.n[0] * windows.n[1]], views[-1])
        except ImageError as error:
            return Failure(name, error.reason)

    def _looked(self, reads: list[CutPicture | Failure], batch_size: int) -> Generator[Looked | Failure, None, None]:
        pixels = [p.pixels for r in reads if isinstance(r, CutPicture) for p in r.seen]
        split = [pixels[i : i + batch_size] for i in range(0, len(pixels), batch_size)]
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
                yield Failure(read.name, "the encoder's numbers for this picture are not finite; try --engine torch")
                continue
            windows = Windows(tuple(self.encoder.layout.to_grid(own).shape[2:]), read.windows.n)  # type: ignore[arg-type]
            yield Looked(read.name, read.size, windows, own, read.whole.pixels)

    def with_masks(
        self, data: MaskedPictures, progress: Progress, what: str
    ) -> Iterator[tuple[Looked, np.ndarray, dict[int, int]]]:
        """Yield the usable pictures, each with its mask and its counts of unnamed pixel values."""
        looked = self.looked([item.image for item in data.items])
        for item, one in progress.results(data.items, looked, what):
            try:
                mask, unnamed = data.truth(item, one.size)
            except ImageError as error:
                progress.failed(Failure(error.path, error.reason))
                continue
            yield one, mask, unnamed

    def resolution(self, looked: Looked) -> tuple[int, int]:
        """Return ``(height, width)`` at which pixels are named: the picture's, or the network's input if that is
        smaller.
        """
        inputs, windows = self.encoder.transform.input_size, looked.windows
        most = (i * g // c for i, g, c in zip(inputs, windows.whole, windows.cells, strict=True))
        height, width = (min(n, m) for n, m in zip(looked.size[::-1], most, strict=True))
        return height, width


class CutPicture(NamedTuple):
    """A picture before the trunk: its windows, and the whole picture."""

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
"""The cosine of a class that counts as absent, as in MaskCLIP's released code."""
OVERLAP, STRETCH = 0.25, 1.5
"""Share of a window that the next one repeats, and how far its shape may differ from the network's input."""
LONGEST, MOST, STRIP = 64, 512, 64
"""Largest ratio of a picture's sides, most windows per picture, and rows at once."""


@dataclass(frozen=True)
class Windows:
    """The places of a picture's windows, in cells of the whole."""

    cells: tuple[int, int]
    n: tuple[int, int]

    @classmethod
    def over(cls, size: tuple[int, int], cells: tuple[int, int], along: int) -> Windows:
        """Return the windows of a picture of this width and height, with this many along its short side.

        >>> Windows.over((640, 480), (14, 14), 1).n, Windows.over((1920, 1080), (14, 14), 1).n
        ((1, 1), (1, 2))
        >>> Windows.over((480, 640), (7, 7), 2).n
        (2, 2)
        """
        width, height = size
        short = 1 + (along - 1) * (1 - OVERLAP)
        needed = short * max(size) / min(size) / STRETCH
        longer = max(along, 1 + math.ceil((needed - 1) / (1 - OVERLAP) - 1e-9))
        if along > 1 and along * longer > MOST:
            return cls.over(size, cells, along - 1)
        return cls(cells, (longer, along) if height > width else (along, longer))

    @property
    def strides(self) -> tuple[int, int]:
        """Cells between one window and the next."""
        down, across = (max(1, round(c * (1 - OVERLAP))) for c in self.cells)
        return down, across

    @property
    def whole(self) -> tuple[int, int]:
        """``(h, w)`` of the whole picture in cells."""
        h, w = (c + (n - 1) * s for c, n, s in zip(self.cells, self.n, self.strides, strict=True))
        return h, w

    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each window in cells, row by row."""
        down, across = self.strides
        return [(i * down, j * across) for i in range(self.n[0]) for j in range(self.n[1])]

    def crops(self) -> list[Crop]:
        """The windows as fractions of the picture."""
        (high, wide), (h, w) = self.whole, self.cells
        return [Crop((x / wide, y / high, (x + w) / wide, (y + h) / high)) for y, x in self.corners()]

    def merged(self, maps: Float[Tensor, "n k h w"]) -> Float[Tensor, "k H W"]:
        """Merge the maps of the windows into one of the picture; overlaps are averaged."""
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
    """Return the matrix that interpolates ``n`` values to ``m`` places, as ``interpolate(align_corners=False)``
    does.
    """
    place = ((torch.arange(m, dtype=torch.float64) + 0.5) * n / m - 0.5).clamp(0, n - 1)
    below = place.floor().long()
    share = place - below
    matrix = torch.zeros(m, n, dtype=torch.float64)
    rows = torch.arange(m)
    matrix[rows, below] += 1 - share
    matrix[rows, (below + 1).clamp(max=n - 1)] += share
    return matrix.float()


def best_classes(
    scores: Float[Tensor, "k h w"], size: tuple[int, int], scale: float = 1.0, *, alone: bool = False
) -> tuple[UInt8[Tensor, "y x"], Float[Tensor, "y x"]]:
    """Return the best class at every pixel, its score interpolated bilinearly between cells, and its probability;
    computed in strips.
    """
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
    """Return the mean of a map over each box, with each cell weighted by its covered share."""
    d, h, w = grid.shape
    table = grid.new_zeros(d, h + 1, w + 1, dtype=torch.float64)
    table[:, 1:, 1:] = grid.double().cumsum(1).cumsum(2)

    def up_to(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "d n"]:
        """The sum of all that is above and left of a place: bilinear between the corners of cells."""
        col, row = x.floor().clamp(0, w - 1).long(), y.floor().clamp(0, h - 1).long()
        a, b = x - col, y - row
        upper = table[:, row, col] * (1 - a) + table[:, row, col + 1] * a
        lower = table[:, row + 1, col] * (1 - a) + table[:, row + 1, col + 1] * a
        return upper * (1 - b) + lower * b

    left, top, right, bottom = boxes.double().unbind(1)
    total = up_to(right, bottom) - up_to(left, bottom) - up_to(right, top) + up_to(left, top)
    return (total / ((right - left) * (bottom - top))).T.to(grid.dtype)


def shares(spans: Float[Tensor, "*i 2"], n: int) -> Float[Tensor, "*i n"]:
    """Return the share of each span in each of ``n`` cells, so that means over boxes are two products."""
    first = torch.arange(n)
    inside = torch.minimum(spans[..., 1:], first + 1.0) - torch.maximum(spans[..., :1], first.float())
    return inside.clamp(min=0) / (spans[..., 1:] - spans[..., :1])


def span_means(grid: Float[Tensor, "d h w"], x: Float[Tensor, "n 2"], y: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
    """Return the same means as :func:`box_means`, for boxes given by spans across and down: two products, cheaper on
    small maps.
    """
    rows = torch.tensordot(shares(y, grid.shape[1]), grid, ([1], [1]))
    return torch.einsum("ndw,nw->nd", rows, shares(x, grid.shape[2]))
