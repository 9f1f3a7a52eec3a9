"""A segmenter: an encoder at a larger input, and what makes classes of its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import checked
from ..encoders.base import Encoder
from ..errors import ImageError, InputError
from ..heads.head import Head
from ..pictures.sources import One
from ..types import Failure
from .cells import joint_cells
from .explained import ExplainsParts
from .pooled_score import PooledScore
from .presence import NamesThere, Presence
from .reader import LARGEST, Looked, Reader
from .refine import ABSENT
from .segmentation import NOTHING, Segmentation, segments_of
from .windows import best_classes


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

    def pooled(self, looks: Segmenter) -> PooledScore:
        """The same as a layer on the mean of cells, so that a segment's score can be explained."""
        ...

    def finish(self, scores: Float[Tensor, "k h w"], keys: Float[Tensor, "c h w"] | None) -> Float[Tensor, "k h w"]:
        """Of the whole picture, when its windows are put together."""
        ...


@dataclass(frozen=True, eq=False)
class Segmenter(ExplainsParts):
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
        presence: which names a picture and a place in it hold; ``None`` names every pixel.
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
    presence: Presence | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0.25 <= self.zoom <= 32 or not 0 <= self.least < 1:
            raise InputError(
                f"A segmenter was given zoom={self.zoom:g}, least={self.least:g}. A zoom from 0.25 to 32, and a "
                "probability from 0 to below 1, were expected. Change them."
            )

    @cached_property
    def reader(self) -> Reader:
        """What looks at pictures."""
        return Reader(self.base, self.zoom, self.levels)

    @property
    def encoder(self) -> Encoder:
        """What looks, at the size of a window."""
        return self.reader.encoder

    def score(self, cells: Callable[[Encoder, Tensor], Tensor], head: Head) -> PooledScore:
        """A layer on the mean of cells, by which its scorer names a segment."""
        return PooledScore(
            self.reader, self.method, self.classes, cells, head, parameters=self.parameters, trained_on=self.trained_on
        )

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
        """The same of many, in order; one that cannot be read never stops the others."""
        for read in self.reader.looked(pictures, batch_size=batch_size):
            yield read if isinstance(read, Failure) else self._named(read)

    @torch.no_grad()
    def scores(self, looked: Looked) -> Float[Tensor, "k h w"]:
        """Of each class at each cell of the whole picture."""
        grid = looked.windows.merged
        keys = grid(self.encoder.layout.to_grid(looked.features)) if self.scorer.compares else None
        return self.scorer.finish(grid(self.scorer.scores(self.encoder, looked.features)), keys)

    def _named(self, looked: Looked) -> Segmentation:
        scores = self.scores(looked)
        presence = self.named_in(looked)
        mask, probability = self.pixels(scores, looked, presence)
        about = {
            "method": self.method,
            "encoder": self.base.name,
            "fingerprint": self.base.fingerprint,
            "input": list(self.encoder.transform.input_size),
            "n_windows": looked.windows.n[0] * looked.windows.n[1],
            "grid": list(scores.shape[1:]),
        }
        found = segments_of(self.classes, mask, probability)
        by_name = {} if presence is None or self.presence is None else self.presence.to_json(presence.of_picture)
        return Segmentation(looked.name, self.classes, mask, scores.numpy(), found, about, looked.pixels, by_name)

    def named_in(self, looked: Looked) -> NamesThere | None:
        """Which names a picture and its places hold; ``None`` where every pixel is named."""
        if self.presence is None:
            return None
        cells = looked.windows.merged(joint_cells(self.encoder, looked.features))
        return self.presence.there(self.encoder, looked, cells)

    def pixels(
        self, scores: Float[Tensor, "k h w"], looked: Looked, there: NamesThere | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class and probability of each pixel; no finer than the network's input was, then repeated.

        Args:
            scores: of each class at each cell.
            looked: the picture after the trunk.
            there: which names it holds, the others having no pixel; left out, it may hold all.
        """
        size, (height, width) = looked.size[::-1], self.reader.resolution(looked)
        if there is not None:
            scores = scores.masked_fill(~there.found[:, None, None], ABSENT)
        best, likely = best_classes(scores, (height, width), self.scorer.scale)
        assert likely is not None
        mask, probability = best.numpy(), likely.numpy()
        if there is not None:
            mask = there.without_others(mask)
        if self.least:
            mask = np.where(probability < self.least, np.uint8(NOTHING), mask)
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, (height, width), strict=True))
        return mask[rows][:, columns], probability[rows][:, columns]
