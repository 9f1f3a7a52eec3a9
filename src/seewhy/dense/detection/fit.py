"""``seewhy.fit_detector``: pictures with boxes become a detector, measured and calibrated fold by fold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...arguments import checked
from ...encoders.base import Encoder
from ...encoders.find import encoder as find
from ...errors import DataError, InputError
from ...metrics.average_precision import AveragePrecision, average_precision, boxes_of, mean
from ...parameters import configured
from ...pictures.boxes import BoxData, BoxedPicture, BoxRecord, load_boxes
from ...pictures.samples import Sample, folds_of, gathered, some
from ...progress import Progress
from ...storage.marks import CHECKPOINT
from ...storage.output import check_checkpoint, remove, write
from ...storage.reading import read_tensors
from ...storage.tensors import marked_tensors
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
        progress: callback for progress, notes and failures.
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
    for reader in readers.values():  # pictures that can be read stay, looked at once
        given = usable(given.present())
        looked = progress.results(given.pictures, reader.looked([p.image for p in given.pictures]), "Looking")
        given = replace(given, pictures=tuple(replace(p, size=one.size) for p, one in looked), notes=())
    given = usable(given)
    fold = dealt(given, folds, seed)
    trials = [
        Trial.of(how, given, out_of_fold(how, readers[how.zoom], given, fold, progress, checkpoint)) for how in able
    ]
    best = max(trials, key=lambda trial: trial.measured.ap50)
    detector = fitted(best.how, readers[best.how.zoom], given, progress, checkpoint)
    rows = calibrated(given.pictures, best.found, fold, given.classes, precision)
    for note in _notes(rows, precision):
        progress.note(note)
    calibration = {
        "n_pictures": len(given), "n_folds": max(fold) + 1, "fewest": FEWEST, "precision": precision,
        "classes": [{**row, "ap50": best.per_class.get(row["label"])} for row in rows], **best.figures(given, fold),
        "methods": [{"name": trial.how.name, "ap50": round(trial.measured.ap50, 6)} for trial in trials],
    }  # fmt: skip
    return replace(
        detector, thresholds=tuple(r["threshold"] for r in rows), calibration=calibration, looks=None,
        pictures=digests(p.image for p in given.pictures),
    )  # fmt: skip


def methods_for(name: str, parameters: dict[str, Any]) -> list[Any]:
    """Methods that are trained, with the parameters that are theirs: one, or all where the best is to be taken."""
    able = [n for n in detectors if hasattr(detectors[n], "fit")]
    if name != AUTO and name not in able:
        _ = detectors[name]
        raise InputError(
            f"The detector {name} is not trained. One of {AUTO}, {', '.join(able)} was expected. Use it with detect "
            f"--method {name}."
        )
    classes: list[Any] = [detectors[n] for n in (able if name == AUTO else [name])]
    own = [{f.name for f in fields(cls)} for cls in classes]
    nobodys = {key: value for key, value in parameters.items() if not any(key in names for names in own)}
    return [
        configured(cls, nobodys | {key: value for key, value in parameters.items() if key in names})
        for cls, names in zip(classes, own, strict=True)
    ]


def usable(data: BoxData) -> BoxData:
    """With the classes of which there is a box."""
    known = {b.label for p in data.pictures for b in p.boxes if not b.ignored}
    if not known:
        raise DataError(
            f"There is no box on the {len(data)} picture(s) that are there. At least one was expected. Give pictures "
            "with boxes."
        )
    return replace(data, classes=tuple(c for c in data.classes if c in known))


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
        interval = on_new_pictures(self.measured, fold)
        return {"ap50": round(self.measured.ap50, 6), "ap50_interval": interval, "controls": controls}


def on_new_pictures(measured: AveragePrecision, fold: Sequence[int], n_draws: int = N_DRAWS) -> list[float]:
    """Where AP50 of another fit on as many new pictures lies in 19 of 20 cases."""
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


def out_of_fold(
    how: Any, reader: Reader, data: BoxData, fold: Sequence[int], progress: Progress, checkpoint: Path | None = None
) -> list[BoxedPicture]:
    """What a method finds in each picture, learning from the other folds alone; folds that are done are kept."""
    found: dict[str, BoxedPicture] = {}
    for k in range(max(fold) + 1):
        sides = [
            tuple(p for p, f in zip(data.pictures, fold, strict=True) if (f == k) is held) for held in (False, True)
        ]
        train, held = usable(replace(data, pictures=sides[0])), sides[1]
        key = _key(how, reader, train, held)
        boxes = None if checkpoint is None else _kept_boxes(beside(checkpoint), key, held, train.classes)
        if boxes is None:
            detector = fitted(how, reader, train, progress, checkpoint)
            if checkpoint is not None:
                remove(checkpoint, CHECKPOINT)
            looked = progress.results(held, detector.detect_all([p.image for p in held]), f"Finding, fold {k + 1}")
            boxes = {p.image: result.record() for p, result in looked}
            if checkpoint is not None:
                _keep_boxes(beside(checkpoint), key, [boxes.get(p.image) for p in held], train.classes)
        found |= boxes
    return [found.get(p.image, BoxedPicture(p.image, p.size)) for p in data.pictures]


def fitted(how: Any, reader: Reader, data: BoxData, progress: Progress, checkpoint: Path | None) -> TrainedDetector:
    """A detector that keeps whatever it finds."""
    keeps = {"checkpoint": checkpoint} if "checkpoint" in how.fit.__annotations__ else {}
    finder = how.fit(reader, data, progress=progress, **keeps)
    most = max(MOST, *(len(p.boxes) for p in data.pictures))
    return TrainedDetector(
        how.name, asdict(how), reader.base, data.classes, finder, (0.0,) * len(data.classes), how.zoom, most=most,
        trained_on=f"{data.n_boxes} boxes of {len(data)} pictures", looks=reader,
    )  # fmt: skip


def _key(how: Any, reader: Reader, train: BoxData, held: Sequence[BoxedPicture]) -> str:
    sides = [
        [(p.image, [(b.label, b.box, b.ignored) for b in p.boxes]) for p in side] for side in (train.pictures, held)
    ]
    text = json.dumps([how.name, asdict(how), reader.base.fingerprint, sides])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def beside(checkpoint: Path) -> Path:
    """Where boxes of folds that are done lie, so that a fit that was stopped goes on with the next."""
    return checkpoint.with_name(f"{checkpoint.name}-folds")


def _kept(path: Path) -> dict[str, Tensor]:
    if not check_checkpoint(path).exists():
        return {}
    try:
        return read_tensors(path)[0]
    except (OSError, ValueError):
        return {}


def _kept_boxes(
    path: Path, key: str, held: Sequence[BoxedPicture], classes: Sequence[str]
) -> dict[str, BoxedPicture] | None:
    """Those of a fold; ``None`` where it was not done, or is damaged."""
    rows = _kept(path).get(key)
    if rows is None or rows.ndim != 2 or rows.shape[1] != 7 or not bool(rows.isfinite().all()):
        return None
    boxes: dict[int, list[BoxRecord]] = {}
    for i, k, score, *box in rows.tolist():
        if not (0 <= i < len(held) and 0 <= k < len(classes)):
            return None
        boxes.setdefault(int(i), []).append(BoxRecord(tuple(box), classes[int(k)], score))
    return {p.image: BoxedPicture(p.image, p.size, tuple(boxes.get(i, ()))) for i, p in enumerate(held)}


def _keep_boxes(path: Path, key: str, boxes: Sequence[BoxedPicture | None], classes: Sequence[str]) -> None:
    """Keep those of one more fold."""
    place = {name: k for k, name in enumerate(classes)}
    rows = [[i, place[b.label], b.score, *b.box] for i, p in enumerate(boxes) for b in (p.boxes if p else ())]
    tensor = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
    write(path, marked_tensors({**_kept(path), key: tensor}), CHECKPOINT)
