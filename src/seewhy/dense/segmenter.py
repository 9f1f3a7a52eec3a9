"""A segmenter: an encoder at a larger input, and what makes classes of its cells."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.larger import can_grow, larger
from ..errors import ImageError, InputError
from ..pictures.images import Picture, read_views
from ..pictures.sizes import upright_size
from ..pictures.sources import One, name_of
from ..types import Crop, Failure
from .levels import with_levels
from .segmentation import NOTHING, Segmentation, segments_of
from .windows import Windows, best_classes

LARGEST = 2.0
"""Inputs larger than this many of the encoder's own are cut into tiles."""
WHOLE = Crop((0.0, 0.0, 1.0, 1.0))


class Scorer(Protocol):
    """What makes scores of classes of an encoder's cells.

    Attributes:
        scale: what a score is multiplied with before the softmax.
        compares: whether :meth:`finish` wants what cells are compared by.
    """

    @property
    def scale(self) -> float: ...
    @property
    def compares(self) -> bool: ...

    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        """Of each window by itself."""
        ...

    def random(self, seed: int) -> Scorer | None:
        """The same with other texts, drawn at random; ``None`` where no texts score."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What its method needs to make it again."""
        ...

    def finish(self, scores: Float[Tensor, "k h w"], keys: Float[Tensor, "c h w"] | None) -> Float[Tensor, "k h w"]:
        """Of the whole picture, when its windows are put together."""
        ...


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Names every pixel of a picture.

    Attributes:
        method: registered name of what made it.
        parameters: the method's fields.
        base: what looks, at its own size.
        classes: at least two names, 255 at most.
        scorer: cells → scores of classes.
        zoom: the picture's short side, in inputs of the encoder: twice its own where it takes larger inputs; what is
            larger than that, or larger than the encoder takes, is looked at in tiles.
        least: probability below which a pixel is given no name; 0 names all.
        trained_on: one line for who asks.
        levels: maps of the trunk that are looked at, the last and finer ones.
    """

    method: str
    parameters: dict[str, Any]
    base: Encoder
    classes: tuple[str, ...]
    scorer: Scorer = field(repr=False)
    zoom: float = LARGEST
    least: float = 0.0
    trained_on: str = "nothing but the names of the classes"
    levels: int = 1

    def __post_init__(self) -> None:
        if not 0.25 <= self.zoom <= 32 or not 0 <= self.least < 1:
            raise InputError(
                f"A segmenter was given zoom={self.zoom:g}, least={self.least:g}. A zoom from 0.25 to 32, and a "
                "probability from 0 to below 1, were expected. Change them."
            )

    @cached_property
    def encoder(self) -> Encoder:
        """What looks, at the size of a window."""
        grown = larger(self.base, min(self.zoom, LARGEST)) if can_grow(self.base) else self.base
        return with_levels(grown, self.levels)

    @property
    def along(self) -> int:
        """Windows on the short side of a picture."""
        return max(1, round(self.zoom / (min(self.zoom, LARGEST) if can_grow(self.base) else 1.0)))

    def with_trained_on(self, what: str) -> Segmenter:
        """The same, with what it was trained on."""
        return replace(self, trained_on=what)

    def check(self) -> None:
        """See that it can score what its encoder gives, with as many classes as it has.

        Raises:
            ValueError: it cannot, or its numbers are not finite.
        """
        features = self.encoder.forward_features(torch.zeros(1, 3, *self.encoder.transform.input_size))
        scores = self.scorer.scores(self.encoder, features)
        if scores.shape[1] != len(self.classes) or not bool(scores.isfinite().all()):
            raise ValueError(
                f"it gives {scores.shape[1]} scores for {len(self.classes)} classes, or none that are finite"
            )

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

    @checked
    def segment(self, picture: One) -> Segmentation:
        """Name every pixel of a picture.

        Args:
            picture: a file name, pixels, or whatever else a picture may be given as (:mod:`seewhy.pictures.sources`).

        Raises:
            ImageError: it cannot be read.
        """
        found = next(iter(self.segment_all([picture])))
        if isinstance(found, Failure):
            raise ImageError(found.image, found.error)
        return found

    def segment_all(self, pictures: Iterable[Any], *, batch_size: int = 8) -> Iterator[Segmentation | Failure]:
        """The same of many, in order; one that cannot be read never stops the others.

        Args:
            pictures: file names or pixels.
            batch_size: windows that the engine sees at once; bounds memory.
        """
        for read in self.cells_of(pictures, batch_size=batch_size):
            yield read if isinstance(read, Failure) else self._named(read)

    def cells_of(self, pictures: Iterable[Any], *, batch_size: int = 8) -> Iterator[Looked | Failure]:
        """The scores and features of many pictures, in order, each looked at once; decoding runs ahead in threads."""
        numbered = enumerate(pictures, 1)
        # At least as many pictures as threads wait decoded, so that the engine never does.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            ahead: list[Future[_Read | Failure]] = []

            def submit(n: int) -> None:
                ahead.extend(pool.submit(self._read, i, one) for i, one in islice(numbered, n))

            _ = self.encoder.engine
            submit(2 * batch_size)
            while ahead:
                reads = [future.result() for future in ahead[:batch_size]]
                del ahead[:batch_size]
                submit(batch_size)
                yield from self._looked(reads, batch_size)

    def _read(self, number: int, source: Any) -> _Read | Failure:
        name = name_of(source, number)
        try:
            size = upright_size(source)
            windows = self.windows(size)
            crops = [WHOLE] if windows.n == (1, 1) else [*windows.crops(), WHOLE]
            return _Read(name, size, windows, read_views(source, self.encoder.transform, crops))
        except ImageError as error:
            return Failure(name, error.reason)

    def _looked(self, reads: list[_Read | Failure], batch_size: int) -> Iterator[Looked | Failure]:
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

    @torch.no_grad()
    def scores(self, looked: Looked) -> Float[Tensor, "k h w"]:
        """Of each class at each cell of the whole picture."""
        grid = looked.windows.merged
        keys = grid(self.encoder.layout.to_grid(looked.features)) if self.scorer.compares else None
        return self.scorer.finish(grid(self.scorer.scores(self.encoder, looked.features)), keys)

    def _named(self, looked: Looked) -> Segmentation:
        scores = self.scores(looked)
        mask, probability = self.pixels(scores, looked)
        if self.least:
            mask = np.where(probability < self.least, np.uint8(NOTHING), mask)
        about = {
            "method": self.method,
            "encoder": self.base.name,
            "fingerprint": self.base.fingerprint,
            "input": list(self.encoder.transform.input_size),
            "n_windows": looked.windows.n[0] * looked.windows.n[1],
            "grid": list(scores.shape[1:]),
        }
        found = segments_of(self.classes, mask, probability)
        return Segmentation(looked.name, self.classes, mask, scores.numpy(), found, about, looked.pixels)

    def resolution(self, looked: Looked) -> tuple[int, int]:
        """``(height, width)`` at which pixels are named: the picture's, or the network's input where that is less."""
        inputs, windows = self.encoder.transform.input_size, looked.windows
        most = (i * g // c for i, g, c in zip(inputs, windows.whole, windows.cells, strict=True))
        height, width = (min(n, m) for n, m in zip(looked.size[::-1], most, strict=True))
        return height, width

    def pixels(self, scores: Float[Tensor, "k h w"], looked: Looked) -> tuple[np.ndarray, np.ndarray]:
        """Class and probability of each pixel; no finer than the network's input was, then repeated."""
        size, (height, width) = looked.size[::-1], self.resolution(looked)
        best, likely = best_classes(scores, (height, width), self.scorer.scale)
        assert likely is not None
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, (height, width), strict=True))
        return best.numpy()[rows][:, columns], likely.numpy()[rows][:, columns]


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
    """A picture after the trunk.

    Attributes:
        name: as given.
        size: ``(width, height)``.
        windows: where they lie.
        features: of each window, as the trunk arranges them.
        pixels: the whole picture, stretched to the input.
    """

    name: str
    size: tuple[int, int]
    windows: Windows
    features: Tensor
    pixels: np.ndarray
