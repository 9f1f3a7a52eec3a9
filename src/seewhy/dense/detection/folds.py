"""Boxes in every picture by a detector that has not learnt from it, fold by fold, and what is kept of those done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...errors import DataError
from ...pictures.apart import folds_of
from ...pictures.boxes import BoxData, BoxedPicture, BoxRecord
from ...pictures.samples import Sample, gathered
from ...progress import Progress
from ...storage.marks import CHECKPOINT
from ...storage.output import check_checkpoint, remove, write
from ...storage.reading import read_tensors
from ...storage.tensors import marked_tensors
from ...types import Failure
from ..reader import Reader
from .trained import TrainedDetector

T = TypeVar("T")
MOST = 100
"""Boxes kept in a picture, unless more are there in one that is learnt from."""


def dealt(data: BoxData, n: int, seed: int) -> list[int]:
    """The fold of each picture; copies stay together, and pictures with boxes are spread evenly.

    Raises:
        DataError: fewer than two pictures have boxes and are no copies.
    """
    has = [any(not b.ignored for b in p.boxes) for p in data.pictures]
    fold = [0] * len(data)
    for which in (True, False):
        own = [i for i, one in enumerate(has) if one is which]
        for i, f in zip(own, folds_of(gathered([Sample(data.pictures[i].image) for i in own]), n, seed), strict=True):
            fold[i] = f
    n_boxed = len({f for f, one in zip(fold, has, strict=True) if one})
    if n_boxed < 2:
        raise DataError(
            f"{sum(has)} picture(s) with boxes were given, copies of one. Two or more that are no copies were "
            "expected, as each is measured by a detector that has not learnt from it. Give more pictures."
        )
    return [f % n_boxed for f in fold]


@dataclass(frozen=True)
class Folds:
    """How pictures are divided, what looks at them, and where the boxes of folds that are done are kept.

    Attributes:
        reader: what looks; it keeps what it saw.
        data: the pictures.
        fold: of each.
        checkpoint: of the training under way; boxes lie beside it. ``None`` keeps nothing.
    """

    reader: Reader
    data: BoxData
    fold: Sequence[int]
    checkpoint: Path | None = None

    def found(self, how: Any, progress: Progress) -> list[BoxedPicture]:
        """What a method finds in each picture, learning from the other folds alone."""
        n, found = max(self.fold) + 1, dict[str, BoxedPicture]()
        store = None if self.checkpoint is None else KeptBoxes(beside(self.checkpoint))
        for k in range(n):
            train = _usable(self._of(k, False))
            held = self._of(k, True)
            key = _key(how, self.reader, train, held)
            boxes = None if store is None else store.read(key, held, train.classes)
            if boxes is None:
                told = _Named(progress, f"{how.name}, fold {k + 1} of {n}")
                boxes = self._boxes(how, train, held, told)
                if store is not None:
                    store.add(key, boxes, train.classes)
            found |= {p.image: p for p in boxes}
        return [found[p.image] for p in self.data.pictures]

    def _of(self, k: int, held: bool) -> BoxData:
        own = [p for p, f in zip(self.data.pictures, self.fold, strict=True) if (f == k) is held]
        return replace(self.data, pictures=tuple(own))

    def _boxes(self, how: Any, train: BoxData, held: BoxData, progress: Progress) -> list[BoxedPicture]:
        made = fitted(how, self.reader, train, progress, self.checkpoint)
        if self.checkpoint is not None:
            remove(self.checkpoint, CHECKPOINT)
        looked = made.detect_all([p.image for p in held.pictures])
        found = {p.image: one.record() for p, one in progress.results(held.pictures, looked, "Finding")}
        return [found.get(p.image, BoxedPicture(p.image, p.size)) for p in held.pictures]


def fitted(how: Any, reader: Reader, data: BoxData, progress: Progress, checkpoint: Path | None) -> TrainedDetector:
    """A detector that keeps whatever it finds."""
    keeps = {"checkpoint": checkpoint} if "checkpoint" in how.fit.__annotations__ else {}
    finder = how.fit(reader, data, progress=progress, **keeps)
    most = max(MOST, *(len(p.boxes) for p in data.pictures))
    return TrainedDetector(
        how.name, asdict(how), reader.base, data.classes, finder, (0.0,) * len(data.classes), how.zoom, most=most,
        trained_on=f"{data.n_boxes} boxes of {len(data)} pictures", looks=reader,
    )  # fmt: skip


def _usable(data: BoxData) -> BoxData:
    """With the classes of which there is a box."""
    known = {b.label for p in data.pictures for b in p.boxes if not b.ignored}
    return replace(data, classes=tuple(c for c in data.classes if c in known))


def _key(how: Any, reader: Reader, train: BoxData, held: BoxData) -> str:
    sides = [[(p.image, [(b.label, b.box, b.ignored) for b in p.boxes]) for p in d.pictures] for d in (train, held)]
    told = json.dumps([how.name, asdict(how), reader.base.fingerprint, sides])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def beside(checkpoint: Path) -> Path:
    """Where boxes of folds that are done lie."""
    return checkpoint.with_name(f"{checkpoint.name}-folds")


@dataclass(frozen=True)
class KeptBoxes:
    """Boxes of folds that are done, so that a fit that was stopped goes on with the next.

    Attributes:
        path: a file of tensors.
    """

    path: Path

    def _all(self) -> dict[str, Tensor]:
        if not check_checkpoint(self.path).exists():
            return {}
        try:
            return read_tensors(self.path)[0]
        except (OSError, ValueError):
            return {}

    def read(self, key: str, held: BoxData, classes: Sequence[str]) -> list[BoxedPicture] | None:
        """Those of a fold; ``None`` where it was not done, or is damaged."""
        rows = self._all().get(key)
        if rows is None or rows.ndim != 2 or rows.shape[1] != 7 or not bool(rows.isfinite().all()):
            return None
        boxes: dict[int, list[BoxRecord]] = {}
        for i, k, score, *box in rows.tolist():
            if not (0 <= i < len(held) and 0 <= k < len(classes)):
                return None
            boxes.setdefault(int(i), []).append(BoxRecord(tuple(box), classes[int(k)], score))
        return [BoxedPicture(p.image, p.size, tuple(boxes.get(i, ()))) for i, p in enumerate(held.pictures)]

    def add(self, key: str, boxes: Sequence[BoxedPicture], classes: Sequence[str]) -> None:
        """Keep those of one more fold."""
        place = {name: k for k, name in enumerate(classes)}
        rows = [[i, place[b.label], b.score, *b.box] for i, p in enumerate(boxes) for b in p.boxes]
        tensor = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
        write(self.path, marked_tensors({**self._all(), key: tensor}), CHECKPOINT)


class _Named(Progress):
    """Passes on what is heard, bars under a name of their own."""

    def __init__(self, to: Progress, name: str) -> None:
        self.to, self.name = to, name

    def failed(self, failure: Failure) -> None:
        self.to.failed(failure)

    def note(self, text: str) -> None:
        self.to.note(text)

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        self.to.measured(step, terms)

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        return self.to.track(items, f"{self.name}: {what}", total)
