"""What pictures are read and looked at by: an encoder at a larger input, in windows where that is not enough."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ..bounds import Bound, check_fields
from ..encoders.base import Encoder, can_grow, larger
from ..errors import ImageError
from ..pictures.images import Picture, read_views, upright_size
from ..pictures.pixel_classes import MaskedPictures
from ..pictures.sources import name_of
from ..progress import Progress
from ..threads import each_beside
from ..types import Crop, Failure
from .cells import with_levels
from .windows import LONGEST, Windows

Zoom = Annotated[float, Bound(0.25, 32)]
LARGEST = 2.0
"""Inputs larger than this many of the encoder's own are cut into tiles."""
WHOLE = Crop((0.0, 0.0, 1.0, 1.0))
MOST_KEPT = 2**30
"""Numbers that are kept of pictures, 2 GB; those beyond are looked at again."""


@dataclass(frozen=True, eq=False)
class Reader:
    """Looks at pictures once, at whatever size."""

    base: Encoder
    zoom: Zoom = LARGEST
    levels: int = 1
    kept: dict[str, Looked] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, "A reader of pictures")

    @cached_property
    def encoder(self) -> Encoder:
        """What looks, at the size of a window."""
        grown = larger(self.base, min(self.zoom, LARGEST)) if can_grow(self.base) else self.base
        return with_levels(grown, self.levels)

    @property
    def along(self) -> int:
        """Windows on the short side of a picture."""
        return max(1, round(self.zoom / (min(self.zoom, LARGEST) if can_grow(self.base) else 1.0)))

    @cached_property
    def cells(self) -> tuple[int, int]:
        """``(h, w)`` of a window's map, from one pass over nothing."""
        if self.encoder.layout.grid is not None:
            return self.encoder.layout.grid
        empty = torch.zeros(1, 3, *self.encoder.transform.input_size)
        h, w = self.encoder.layout.to_grid(self.encoder.forward_features(empty)).shape[2:]
        return h, w

    def windows(self, size: tuple[int, int]) -> Windows:
        """Those of a picture of this width and height."""
        one = Windows.over(size, (1, 1), self.along)
        return one if one.n == (1, 1) else Windows(self.cells, one.n)

    def keeping(self) -> Reader:
        """The same, which looks once at each file that it is shown again and again."""
        return replace(self, kept={})

    def looked(self, pictures: Iterable[Any], *, batch_size: int = 8) -> Iterator[Looked | Failure]:
        """Many pictures, in order, each looked at once; decoding runs ahead in threads."""
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
            ahead: list[Future[_Read | Failure]] = []

            def submit(n: int) -> None:
                ahead.extend(pool.submit(self._read, i, one) for i, one in islice(numbered, n))

            _ = self.encoder.engine
            submit(2 * at_once)
            while ahead:
                reads = [future.result() for future in ahead[:at_once]]
                del ahead[:at_once]
                submit(at_once)
                yield from each_beside(self.encoder.engine.name, self._looked(reads, batch_size))

    def _read(self, number: int, source: Any) -> _Read | Failure:
        name = name_of(source, number)
        try:
            size = upright_size(source, longest=LONGEST)
            windows = self.windows(size)
            crops = [WHOLE] if windows.n == (1, 1) else [*windows.crops(), WHOLE]
            return _Read(name, size, windows, read_views(source, self.encoder.transform, crops))
        except ImageError as error:
            return Failure(name, error.reason)

    def _looked(self, reads: list[_Read | Failure], batch_size: int) -> Generator[Looked | Failure, None, None]:
        pixels = [p.pixels for r in reads if isinstance(r, _Read) for p in r.seen]
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
            yield Looked(read.name, read.size, windows, own, read.views[-1].pixels)

    def with_masks(
        self, data: MaskedPictures, progress: Progress, what: str
    ) -> Iterator[tuple[Looked, np.ndarray, dict[int, int]]]:
        """Pictures that can be used, each with its mask and how many pixels have which value without a name."""
        looked = self.looked([item.image for item in data.items])
        for item, one in progress.results(data.items, looked, what):
            try:
                mask, unnamed = data.truth(item, one.size)
            except ImageError as error:
                progress.failed(Failure(error.path, error.reason))
                continue
            yield one, mask, unnamed

    def resolution(self, looked: Looked) -> tuple[int, int]:
        """``(height, width)`` at which pixels are named: the picture's, or the network's input where that is less."""
        inputs, windows = self.encoder.transform.input_size, looked.windows
        most = (i * g // c for i, g, c in zip(inputs, windows.whole, windows.cells, strict=True))
        height, width = (min(n, m) for n, m in zip(looked.size[::-1], most, strict=True))
        return height, width


@dataclass(frozen=True)
class _Read:
    """A picture before the trunk: its windows, and last the whole of it."""

    name: str
    size: tuple[int, int]
    windows: Windows
    views: list[Picture]

    @property
    def seen(self) -> list[Picture]:
        """What the trunk looks at."""
        return self.views[: self.windows.n[0] * self.windows.n[1]]


@dataclass(frozen=True, eq=False)
class Looked:
    """A picture after the trunk."""

    name: str
    size: tuple[int, int]
    windows: Windows
    features: Tensor
    pixels: np.ndarray
