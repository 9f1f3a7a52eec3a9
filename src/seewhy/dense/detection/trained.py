"""A trained detector: an encoder, a finder of regions in its features, and thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...encoders.base import Encoder
from ...encoders.stream import file_digest
from ...errors import DataError, InputError
from ...learning.encoders.towers import TunedPictures
from ...pictures.boxes import BoxedPicture
from ...report.documents import expected
from ...types import Failure
from ..finders import Detector
from ..parts import PooledScore
from ..reader import LARGEST, Looked, Reader
from ..regions import Detections, Keep, class_names

CANDIDATES = 1000
"""Pairs of a region and a class, with the highest scores, that enter the suppression of overlaps."""


class Regions(NamedTuple):
    """Places in one picture: corners as fractions of its width and height, and the score of each class, 0 to 1."""

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n k"]
    made_of: Mapping[str, Float[Tensor, "n k"]] = {}


class Finder(Protocol):
    """Finds regions in a picture's features, before any suppression; it can be rebuilt from its tensors."""

    def regions(self, encoder: Encoder, looked: Looked) -> Regions: ...
    def tensors(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True, eq=False)
class TrainedDetector(Detector):
    """A detector trained on boxes."""

    method: str
    parameters: dict[str, Any] = field(repr=False)
    base: Encoder
    classes: tuple[str, ...]
    finder: Finder = field(repr=False)
    thresholds: tuple[float, ...]
    zoom: float = LARGEST
    overlap: float = 0.5
    most: int = 100
    calibration: dict[str, Any] = field(default_factory=dict, repr=False)
    trained_on: str = "boxes"
    pictures: tuple[str, ...] = field(default=(), repr=False)
    looks: Reader | None = field(default=None, repr=False)
    halves: TunedPictures | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.classes) or not all(0 <= t <= 1 for t in self.thresholds):
            raise InputError(
                f"A detector of {len(self.classes)} classes was given the thresholds {self.thresholds}. Expected "
                "one number from 0 to 1 per class. Change them."
            )

    @cached_property
    def reader(self) -> Reader:
        """Return the reader of pictures: the encoder, with the finder's own trunk if it has one."""
        looks, own = self.looks or Reader(self.base, self.zoom), getattr(self.finder, "trunk", None)
        return looks if own is None else replace(looks, beside=own, kept=None)

    @property
    def reads_words(self) -> bool:
        """Whether it accepts other names."""
        return hasattr(self.finder, "named")

    def keeping(
        self, *, least: float | None = None, overlap: float | None = None, most: int | None = None
    ) -> TrainedDetector:
        """Return the same detector with other limits on the boxes to keep."""
        thresholds = None if least is None else (least,) * len(self.classes)
        given: dict[str, Any] = {"thresholds": thresholds, "overlap": overlap, "most": most}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def for_classes(self, labels: Iterable[str]) -> TrainedDetector:
        """Return the detector for other names; their thresholds are those of the known names, or the mean of these."""
        names = class_names(labels, boxes=True)
        if names == self.classes:
            return self
        if not self.reads_words:
            raise InputError(
                f"The detector {self.method} finds only the classes it was trained on: {', '.join(self.classes)}. "
                "Other names were given. Leave the names out, or fit a detector that reads words."
            )
        known = dict(zip(self.classes, self.thresholds, strict=True))
        mean = sum(self.thresholds) / len(self.thresholds)
        finder = cast(Any, self.finder).named(self.reader.encoder, names)
        return replace(self, classes=names, finder=finder, thresholds=tuple(known.get(n, mean) for n in names))

    def detect_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        for looked in self.reader.looked(pictures):
            yield looked if isinstance(looked, Failure) else self.found(looked)

    @torch.no_grad()
    def found(self, looked: Looked) -> Detections:
        """Return the objects in an encoded picture."""
        boxes, scores, made_of = self.finder.regions(self.reader.encoder, looked)
        least = torch.tensor(self.thresholds, dtype=scores.dtype)
        pairs = torch.nonzero(scores >= least)
        sure = scores[pairs[:, 0], pairs[:, 1]]
        top = sure.topk(min(CANDIDATES, len(sure))).indices
        pairs = pairs[top]
        scale = torch.tensor([*looked.size, *looked.size], dtype=boxes.dtype)
        keep = Keep(0.0, self.overlap, self.most)
        parts = {name: one[pairs[:, 0], pairs[:, 1]] for name, one in made_of.items()}
        kept = keep.detections(boxes[pairs[:, 0]] * scale, sure[top], pairs[:, 1], self.classes, looked.size, parts)
        return Detections(looked.name, looked.size, self.classes, kept, self.about(), looked.pixels)

    @property
    def measured(self) -> str:
        """Return in words how well it does on pictures that it did not learn from."""
        return expected(self.calibration) if "n_folds" in self.calibration else "Not measured."

    def known(self, images: Iterable[str]) -> list[str]:
        """Return those files on which it was fitted, byte for byte."""
        own = set(self.pictures)
        return [image for image in images if set(digests([image])) & own]

    def pooled(self) -> PooledScore:
        """Return how the score of a box is computed from the cells under it."""
        if not hasattr(self.finder, "pooled"):
            return super().pooled()
        score: PooledScore = self.finder.pooled(self.reader, self.classes)
        return replace(score, parameters=self.parameters, trained_on=self.trained_on)

    def about(self) -> dict[str, Any]:
        """Return method, parameters and encoder, as JSON."""
        thresholds = dict(zip(self.classes, self.thresholds, strict=True))
        return {
            "method": self.method,
            "encoder": self.base.name,
            "fingerprint": self.base.fingerprint,
            "measured": self.measured,
            "parameters": {**self.parameters, "thresholds": thresholds, "overlap": self.overlap, "most": self.most},
        }

    def check(self) -> None:
        """Check that it returns scores for its classes, and that its figures are complete."""
        seen = next(self.reader.looked([np.zeros((64, 64, 3), np.uint8)]))
        if isinstance(seen, Failure):
            raise ValueError(seen.error)
        boxes, scores, _ = self.finder.regions(self.reader.encoder, seen)
        if scores.shape[1] != len(self.classes) or not bool(scores.isfinite().all() and boxes.isfinite().all()):
            raise ValueError(
                f"it gives {scores.shape[1]} scores for {len(self.classes)} classes, or some are not finite"
            )
        _ = self.measured


def boxes_on(picture: BoxedPicture, classes: Sequence[str]) -> tuple[Float[Tensor, "g 4"], Int[Tensor, " g"]]:
    """Return a picture's boxes that count, as fractions of it, and the positions of their classes."""
    real = [b for b in picture.boxes if not b.ignored and b.label in classes]
    boxes = torch.tensor([b.box for b in real]).reshape(-1, 4) / torch.tensor((picture.size or (1, 1)) * 2)
    return boxes, torch.tensor([classes.index(b.label) for b in real], dtype=torch.long)


def check_usable(n_boxes: int, n_pictures: int) -> None:
    """Check that there are boxes to learn from."""
    if not n_boxes:
        raise DataError(
            f"None of the {n_pictures} picture(s) could be used with its boxes. Expected at least one readable "
            "picture with a box. Give other pictures."
        )


def digests(images: Iterable[str]) -> tuple[str, ...]:
    """Return the first 16 digits of the SHA-256 of each existing file."""
    return tuple(found[:16] for image in images if (found := file_digest(image)) is not None)
