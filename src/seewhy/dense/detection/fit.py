"""``seewhy.fit_detector``: pictures with boxes become a detector, measured and calibrated fold by fold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...arguments import checked
from ...encoders.base import Encoder
from ...encoders.find import encoder as find
from ...errors import DataError, InputError
from ...metrics.average_precision import AveragePrecision, average_precision, boxes_of, mean
from ...parameters import configured
from ...pictures.apart import folds_of
from ...pictures.boxes import BoxData, BoxedPicture, BoxRecord, load_boxes
from ...pictures.samples import Sample, gathered, some
from ...progress import Progress
from ...storage.marks import CHECKPOINT, marked_tensors
from ...storage.output import check_checkpoint, remove, write
from ...storage.reading import read_tensors
from ...types import Failure
from .. import detectors
from ..evaluation import evaluate_boxes
from ..reader import Reader
from .thresholds import FEWEST, calibrated
from .trained import TrainedDetector, digests

AUTO = "auto"
"""Every method that can be trained on the encoder, of which the one is taken that is best out of fold."""
N_DRAWS = 400
"""Drawings of the pictures, for intervals."""


@checked
def fit_detector(
    data: BoxData | str | Path,
    encoder: Encoder | str = "lite0",
    *,
    method: str = AUTO,
    pictures: str | Path | None = None,
    folds: int = 5,
    precision: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    **parameters: Any,
) -> TrainedDetector:
    """Train a detector on pictures with boxes, and measure it on all of them, each by one that has not learnt from it.

    Boxes out of fold give the figures, the threshold of each class and, for ``"auto"``, the method; then all pictures
    are learnt from. Cost: one look at each picture, and ``folds + 1`` trainings of each method.

    Args:
        data: boxes that were loaded, or where they are (:func:`seewhy.load_boxes`).
        encoder: what looks, frozen, or its name.
        method: a registered name; ``"auto"`` is whichever has the largest AP50 out of fold.
        pictures: the folder of the pictures of a file of boxes; left out, they are looked for nearby.
        folds: parts of the pictures; copies stay together.
        precision: that boxes of a class are to have on new pictures; left out, F1 is to be largest.
        seed: of the folds.
        progress: hears of progress, notes and failures.
        checkpoint: where a method that trains in steps goes on from after it was stopped; boxes of folds that are
            done lie beside it.
        **parameters: those of the method, for example ``zoom=4``.

    Raises:
        DataError: no picture is there, no box can be used, or boxes are on one picture alone.
        InputError: a parameter is out of its range, or the method is not trained.
        UnknownNameError: there is no such method, or it has no such parameter.
    """
    progress = progress or Progress()
    if folds < 2 or (precision is not None and not 0 < precision < 1):
        raise InputError(
            f"fit_detector was given folds={folds} and precision={precision}. Two folds or more, and a precision "
            "above 0 and below 1, were expected. Change them."
        )
    every = methods_for(method, parameters)
    given = data if isinstance(data, BoxData) else load_boxes(data, pictures=pictures)
    for note in given.notes:
        progress.note(note)
    looks = encoder if isinstance(encoder, Encoder) else find(encoder)
    able = [how for how in every if looks.has_text or not getattr(how, "needs_words", False)] or every
    readers = {how.zoom: Reader(looks, how.zoom).keeping() for how in able}
    for reader in readers.values():
        given = _seen(usable(given), reader, progress)
    fold = dealt(given, folds, seed)
    trials = []
    for how in able:
        found = Folds(readers[how.zoom], given, fold, checkpoint).found(how, progress)
        trials.append(Trial.of(how, given, found))
    best = max(trials, key=lambda one: one.ap50)
    made = fitted(best.how, readers[best.how.zoom], given, progress, checkpoint)
    rows = calibrated(given.pictures, best.found, fold, given.classes, precision)
    for note in _notes(rows, precision):
        progress.note(note)
    calibration = {
        "n_pictures": len(given), "n_folds": max(fold) + 1, "fewest": FEWEST, "precision": precision,
        "classes": [{**row, "ap50": best.per_class.get(row["label"])} for row in rows], **best.figures(given, fold),
        "methods": [{"name": one.how.name, "ap50": round(one.ap50, 6)} for one in trials],
    }  # fmt: skip
    return replace(
        made, thresholds=tuple(r["threshold"] for r in rows), calibration=calibration, looks=None,
        pictures=digests(p.image for p in given.pictures),
    )  # fmt: skip


def methods_for(name: str, parameters: dict[str, Any]) -> list[Any]:
    """Methods that are trained, with the parameters that are theirs: one, or all where the best is to be taken."""
    able = [n for n in detectors if hasattr(detectors[n], "fit")]
    if name != AUTO and name not in able:
        _ = detectors[name]
        raise InputError(
            f"The detector {name} is not trained. One of {AUTO}, {', '.join(able)} was expected. Use it with detect "
            f"--detector {name}."
        )
    classes: list[Any] = [detectors[n] for n in (able if name == AUTO else [name])]
    own = [{f.name for f in fields(cls)} for cls in classes]
    nobodys = {key: value for key, value in parameters.items() if not any(key in names for names in own)}
    return [
        configured(cls, nobodys | {key: value for key, value in parameters.items() if key in names})
        for cls, names in zip(classes, own, strict=True)
    ]


def usable(data: BoxData) -> BoxData:
    """Pictures that are there, with the classes that have a box."""
    there = data.present()
    counts = Counter(b.label for p in there.pictures for b in p.boxes if not b.ignored)
    if not counts:
        raise DataError(
            f"There is no box on the {len(there)} picture(s) that are there. At least one was expected. Give pictures "
            "with boxes."
        )
    return replace(there, classes=tuple(c for c in there.classes if counts[c]))


def _seen(data: BoxData, reader: Reader, progress: Progress) -> BoxData:
    """The pictures that can be read, which the reader has then looked at."""
    looked = reader.looked([p.image for p in data.pictures])
    can = [replace(p, size=one.size) for p, one in progress.results(data.pictures, looked, "Looking")]
    return usable(replace(data, pictures=tuple(can), notes=()))


@dataclass(frozen=True)
class Trial:
    """What a method found out of fold, and how good that is."""

    how: Any
    found: Sequence[BoxedPicture]
    measured: AveragePrecision
    enough: bool

    @classmethod
    def of(cls, how: Any, data: BoxData, found: Sequence[BoxedPicture]) -> Trial:
        counts = Counter(b.label for p in data.pictures for b in p.boxes if not b.ignored)
        enough = [c for c in data.classes if counts[c] >= FEWEST]
        classes = enough or data.classes
        there, boxes = ([boxes_of(p, classes) for p in side] for side in (data.pictures, found))
        return cls(how, found, average_precision(there, boxes, classes), bool(enough))

    @property
    def ap50(self) -> float:
        """Over these classes."""
        return self.measured.ap50

    @property
    def per_class(self) -> dict[str, float]:
        """Of each class of which something is said."""
        values = self.measured.per_class()[0, :, 0]
        return {c: round(float(v), 6) for c, v in zip(self.measured.classes, values, strict=True) if self.enough}

    def figures(self, data: BoxData, fold: Sequence[int]) -> dict[str, Any]:
        """AP50 with its interval, and the controls that it is above of; no threshold counts there."""
        if not self.enough:
            return {"ap50": None, "ap50_interval": None, "controls": []}
        classes = self.measured.classes
        judged, own = (BoxData(tuple(p), classes) for p in (data.pictures, self.found))
        rows = evaluate_boxes(judged, own, n_draws=N_DRAWS).data["controls"]
        controls = [{key: row[key] for key in ("name", "ap50_best", "real")} for row in rows]
        return {
            "ap50": round(self.ap50, 6),
            "ap50_interval": on_new_pictures(self.measured, fold),
            "controls": controls,
        }


def on_new_pictures(measured: AveragePrecision, fold: Sequence[int], n_draws: int = N_DRAWS) -> list[float]:
    """Where AP50 of another fit on as many new pictures lies in 19 of 20 cases.

    It differs from that of these pictures as the figures of two drawings differ from each other. A drawing has
    pictures twice, and its AP is too large; of a difference of two that falls out. Fits differ as those of folds do, by
    more than their pictures make them.
    """
    of, n = np.array(fold), max(fold) + 1
    drawn = np.array([mean(one[:, 0]) for one in measured.resampled(n_draws, 0)])
    each = np.array([mean(one[:, 0]) for one in measured.per_class((of == np.arange(n)[:, None]).astype(float))])
    apart = max(0.0, float(each.var(ddof=1) - n * drawn.var())) * (1 + 1 / n)
    wider = (1 + apart / max(2 * float(drawn.var()), 1e-12)) ** 0.5
    off = wider * np.percentile(drawn[:, None] - drawn[None], [2.5, 97.5])
    return [round(float(v), 6) for v in np.clip(measured.ap50 + off, 0, 1)]


def _notes(rows: Sequence[dict[str, Any]], precision: float | None) -> list[str]:
    """What the user should know of the thresholds."""
    notes = []
    if few := [r["label"] for r in rows if not r["own"]]:
        notes.append(
            f"{len(few)} class(es) have fewer than {FEWEST} boxes, or none was found: nothing is said of them, and "
            f"they have the threshold of all together: {some(few)}"
        )
    if below := [r["label"] for r in rows if r["promised"] is False]:
        notes.append(
            f"{len(below)} class(es) reach a precision of {precision:g} for certain at no threshold, and have the "
            f"surest: {some(below)}"
        )
    return notes


T = TypeVar("T")
MOST = 100
"""Boxes kept in a picture, unless more are there in one that is learnt from."""


def dealt(data: BoxData, n: int, seed: int) -> list[int]:
    """The fold of each picture; copies stay together, and pictures with boxes are spread evenly."""
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
    """How pictures are divided, what looks at them, and where the boxes of folds that are done are kept."""

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
    """Boxes of folds that are done, so that a fit that was stopped goes on with the next."""

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
