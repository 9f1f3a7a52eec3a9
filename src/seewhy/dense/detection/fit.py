"""``seewhy.fit_detector``: pictures with boxes become a detector, measured and calibrated fold by fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import checked
from ...encoders.base import Encoder
from ...encoders.find import encoder as find
from ...errors import DataError, InputError
from ...metrics.average_precision import AveragePrecision, average_precision, boxes_of, mean
from ...parameters import configured
from ...pictures.boxes import BoxData, BoxedPicture, load_boxes
from ...pictures.samples import some
from ...progress import Progress
from .. import detectors
from ..box_evaluation import evaluate_boxes
from ..reader import Reader
from .folds import Folds, dealt, fitted
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
    """Pictures that are there, with the classes that have a box.

    Raises:
        DataError: there is no picture, or no box.
    """
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
    """What a method found out of fold, and how good that is.

    Attributes:
        how: the method.
        found: in each picture.
        measured: in classes with boxes enough to say something of, or in all where none has.
        enough: whether there are such classes.
    """

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
