"""Trained detectors with their thresholds."""

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
from ...pictures.boxes import BoxedPicture
from ...report.documents import expected
from ...types import Failure
from ..finders import Detector
from ..parts import PooledScore
from ..reader import LARGEST, Looked, Reader
from ..regions import Detections, Keep, class_names

CANDIDATES = 1000
"""Number of candidates, each a region with a class, that enter non-maximum suppression."""


class Regions(NamedTuple):
    """Candidate boxes as fractions of a picture, with class scores from 0 to 1."""

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n k"]
    made_of: Mapping[str, Float[Tensor, "n k"]] = {}


class Finder(Protocol):
    """The interface of a trained detector before non-maximum suppression."""

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

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.classes) or not all(0 <= t <= 1 for t in self.thresholds):
            raise InputError(
                f"`thresholds` must be {len(self.classes)} numbers from 0 to 1, one per class, got {self.thresholds}."
            )

    @cached_property
    def reader(self) -> Reader:
        looks, own = self.looks or Reader(self.base, self.zoom), getattr(self.finder, "trunk", None)
        return looks if own is None else replace(looks, beside=own, kept=None)

    @property
    def reads_words(self) -> bool:
        """Return whether the detector accepts other names."""
        return hasattr(self.finder, "named")

    def keeping(
        self, *, least: float | None = None, overlap: float | None = None, most: int | None = None
    ) -> TrainedDetector:
        """Return the same detector with other thresholds and limits."""
        thresholds = None if least is None else (least,) * len(self.classes)
        given: dict[str, Any] = {"thresholds": thresholds, "overlap": overlap, "most": most}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def for_classes(self, labels: Iterable[str]) -> TrainedDetector:
        """Return the detector for other names; a name without a threshold gets the mean threshold."""
        names = class_names(labels, boxes=True)
        if names == self.classes:
            return self
        if not self.reads_words:
            raise InputError(
                f"The detector {self.method} finds only the classes it was trained on: {', '.join(self.classes)}. "
                "Leave other names out, or train a detector that accepts names."
            )
        known = dict(zip(self.classes, self.thresholds, strict=True))
        mean = sum(self.thresholds) / len(self.thresholds)
        finder = cast(Any, self.finder).named(self.reader.encoder, names)
        return replace(self, classes=names, finder=finder, thresholds=tuple(known.get(n, mean) for n in names))

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        for looked in self.reader.looked(pictures):
            yield looked if isinstance(looked, Failure) else self.found(looked)

    @torch.no_grad()
    def found(self, looked: Looked) -> Detections:
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
        """The cross-validated quality of the detector, in words."""
        return expected(self.calibration) if "n_folds" in self.calibration else "Not measured."

    def known(self, images: Iterable[str]) -> list[str]:
        """Return the pictures that are byte-identical to a training picture."""
        own = set(self.pictures)
        return [image for image in images if set(digests([image])) & own]

    def pooled(self) -> PooledScore:
        """Return a classifier of one box, which reads the grid cells inside it."""
        if not hasattr(self.finder, "pooled"):
            return super().pooled()
        score: PooledScore = self.finder.pooled(self.reader, self.classes)
        return replace(score, parameters=self.parameters, trained_on=self.trained_on)

    def about(self) -> dict[str, Any]:
        thresholds = dict(zip(self.classes, self.thresholds, strict=True))
        return {
            "method": self.method,
            "encoder": self.base.name,
            "fingerprint": self.base.fingerprint,
            "measured": self.measured,
            "parameters": {**self.parameters, "thresholds": thresholds, "overlap": self.overlap, "most": self.most},
        }

    def check(self) -> None:
        """Check that the detector returns finite scores and has calibration data."""
        seen = next(self.reader.looked([np.zeros((64, 64, 3), np.uint8)]))
        if isinstance(seen, Failure):
            raise ValueError(seen.error)
        boxes, scores, _ = self.finder.regions(self.reader.encoder, seen)
        if scores.shape[1] != len(self.classes) or not bool(scores.isfinite().all() and boxes.isfinite().all()):
            raise ValueError(f"it must give {len(self.classes)} finite scores, one per class, got {scores.shape[1]}")
        _ = self.measured


def boxes_on(picture: BoxedPicture, classes: Sequence[str]) -> tuple[Float[Tensor, "g 4"], Int[Tensor, " g"]]:
    """Return a picture's boxes as fractions, with the indices of their classes."""
    real = [b for b in picture.boxes if not b.ignored and b.label in classes]
    boxes = torch.tensor([b.box for b in real]).reshape(-1, 4) / torch.tensor((picture.size or (1, 1)) * 2)
    return boxes, torch.tensor([classes.index(b.label) for b in real], dtype=torch.long)


def check_usable(n_boxes: int, n_pictures: int) -> None:
    if not n_boxes:
        raise DataError(
            f"At least one readable picture with a box is needed for training, got none among {n_pictures} picture(s)."
        )


def digests(images: Iterable[str]) -> tuple[str, ...]:
    """Return the first 16 digits of the SHA-256 of each existing file."""
    return tuple(found[:16] for image in images if (found := file_digest(image)) is not None)
