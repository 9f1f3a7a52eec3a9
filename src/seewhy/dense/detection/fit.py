"""``seewhy.fit_detector``: training of detectors with cross-validation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ...arguments import checked
from ...encoders.base import Encoder
from ...encoders.find import encoder as find
from ...errors import DataError, InputError
from ...metrics.average_precision import AveragePrecision, Matched, average_precision, boxes_of, mean
from ...metrics.calibration import wilson
from ...parameters import configured
from ...pictures.boxes import BoxData, BoxedPicture, BoxRecord, load_boxes
from ...pictures.samples import Sample, folds_of, gathered, some
from ...progress import Progress
from ...results import restore
from ...storage.journal import Journal
from ...storage.marks import CHECKPOINT, Lines, Record
from ...storage.output import remove
from .. import detectors
from ..evaluation import evaluate_boxes
from ..reader import Reader
from .trained import TrainedDetector, digests

AUTO = "auto"
"""Train all applicable methods and use the one with the best cross-validated result."""
N_DRAWS, MOST, FEWEST = 400, 100, 10
"""Number of bootstrap resamples, number of boxes per picture, and smallest number of boxes for a class's own threshold.
"""
FOLDS = Lines((Record(("key", "boxes")),))


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
    """Train a detector on pictures with boxes and measure it by cross-validation.

    Cross-validated boxes determine the reported quality, the threshold of each class and, for ``"auto"``, the method.
    The final detector is trained on all pictures.

    The encoder runs once per picture. Each method is trained ``folds + 1`` times.

    Args:
        data: loaded boxes, or the path of a box file (:func:`seewhy.load_boxes`).
        encoder: the encoder, or its name.
        method: a registered name; ``"auto"`` chooses the method with the highest cross-validated AP50.
        pictures: folder of the pictures; default: the folder of the box file, or its subfolder ``images``.
        folds: number of cross-validation folds, at least 2. Copies of a picture are in the same fold.
        precision: precision, between 0 and 1, that the threshold of each class should reach; default: the thresholds
            maximise F1.
        seed: seed of the folds.
        progress: callback for progress, notes and failures.
        checkpoint: file from which a stopped training continues.
        **parameters: settings of the method, for example ``zoom=4``.
    """
    progress = progress or Progress()
    if folds < 2 or (precision is not None and not 0 < precision < 1):
        raise InputError(
            f"`folds` must be at least 2 and `precision` between 0 and 1, got folds={folds} and precision={precision}."
        )
    every = methods_for(method, parameters)
    given = data if isinstance(data, BoxData) else load_boxes(data, pictures=pictures)
    progress.note_all(given.notes)
    looks = encoder if isinstance(encoder, Encoder) else find(encoder)
    able = [how for how in every if looks.has_text or not getattr(how, "needs_words", False)] or every
    readers = {how.zoom: Reader(looks, how.zoom, kept={}) for how in able}
    for reader in readers.values():  # encode each readable picture once
        given = usable(given.present())
        looked = progress.results(
            given.pictures, reader.looked([p.image for p in given.pictures]), "Looking at pictures"
        )
        given = replace(given, pictures=tuple(replace(p, size=one.size) for p, one in looked), notes=())
    given = usable(given)
    fold = dealt(given, folds, seed)
    for how in able:
        if hasattr(how, "cost_of") and (note := how.cost_of(readers[how.zoom], given, max(fold) + 2)) is not None:
            progress.note(note)
    trials = [
        Trial.of(how, given, out_of_fold(how, readers[how.zoom], given, fold, progress, checkpoint)) for how in able
    ]
    best = max(trials, key=lambda trial: trial.measured.ap50)
    detector = fitted(best.how, readers[best.how.zoom], given, progress, checkpoint)
    rows = calibrated(given.pictures, best.found, fold, given.classes, precision)
    progress.note_all(_notes(rows, precision))
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
    able = [n for n in detectors if hasattr(detectors[n], "fit")]
    if name != AUTO and name not in able:
        _ = detectors[name]
        raise InputError(
            f"The detector {name} cannot be trained. Choose one of {AUTO}, {', '.join(able)}. To use {name} without "
            f"training: seewhy detect --method {name}."
        )
    tried = [n for n in able if getattr(detectors[n], "in_auto", True)]
    classes: list[Any] = [detectors[n] for n in (tried if name == AUTO else [name])]
    own = [{f.name for f in fields(cls)} for cls in classes]
    nobodys = {key: value for key, value in parameters.items() if not any(key in names for names in own)}
    return [
        configured(cls, nobodys | {key: value for key, value in parameters.items() if key in names})
        for cls, names in zip(classes, own, strict=True)
    ]


def usable(data: BoxData) -> BoxData:
    """Return the data without classes that have no box."""
    known = {b.label for p in data.pictures for b in p.boxes if not b.ignored}
    if not known:
        raise DataError(f"At least one box is needed for training, got {len(data)} readable picture(s) without boxes.")
    return replace(data, classes=tuple(c for c in data.classes if c in known))


@dataclass(frozen=True)
class Trial:
    """The cross-validated boxes of a method and their average precision."""

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
        """Return the AP50 of each class with enough boxes."""
        values = self.measured.per_class()[0, :, 0]
        return {c: round(float(v), 6) for c, v in zip(self.measured.classes, values, strict=True) if self.enough}

    def figures(self, data: BoxData, fold: Sequence[int]) -> dict[str, Any]:
        if not self.enough:
            return {"ap50": None, "ap50_interval": None, "controls": []}
        classes = self.measured.classes
        judged, own = (BoxData(tuple(p), classes) for p in (data.pictures, self.found))
        rows = evaluate_boxes(judged, own, n_draws=N_DRAWS).data["controls"]
        controls = [{key: row[key] for key in ("name", "ap50_best", "real")} for row in rows]
        interval = on_new_pictures(self.measured, fold)
        return {"ap50": round(self.measured.ap50, 6), "ap50_interval": interval, "controls": controls}


def on_new_pictures(measured: AveragePrecision, fold: Sequence[int]) -> list[float]:
    """Return the 95 % prediction interval of the AP50 on a new set with the same number of pictures."""
    of, n = np.array(fold), max(fold) + 1
    resampled = np.array([mean(one[:, 0]) for one in measured.resampled(N_DRAWS, 0)])
    each = np.array([mean(one[:, 0]) for one in measured.per_class((of == np.arange(n)[:, None]).astype(float))])
    apart = max(0.0, float(each.var(ddof=1) - n * resampled.var())) * (1 + 1 / n)
    wider = (1 + apart / max(2 * float(resampled.var()), 1e-12)) ** 0.5
    off = wider * np.percentile(resampled[:, None] - resampled[None], [2.5, 97.5])
    return [round(float(v), 6) for v in np.clip(measured.ap50 + off, 0, 1)]


def _notes(rows: Sequence[dict[str, Any]], precision: float | None) -> list[str]:
    notes = []
    if few := [r["label"] for r in rows if not r["own"]]:
        notes.append(
            f"{len(few)} class(es) have fewer than {FEWEST} boxes or no detection, so they are not measured and use "
            f"the threshold of all classes together: {some(few)}"
        )
    if below := [r["label"] for r in rows if r["promised"] is False]:
        notes.append(
            f"for {len(below)} class(es) no threshold is certain to reach a precision of {precision:g}, so they use "
            f"the threshold with the highest precision: {some(below)}"
        )
    return notes


def dealt(data: BoxData, n: int, seed: int) -> list[int]:
    """Return a fold for each picture, stratified by boxes, with copies in one fold."""
    has = [any(not b.ignored for b in p.boxes) for p in data.pictures]
    fold = [0] * len(data)
    for which in (True, False):
        own = [i for i, one in enumerate(has) if one is which]
        for i, f in zip(own, folds_of(gathered([Sample(data.pictures[i].image) for i in own]), n, seed), strict=True):
            fold[i] = f
    n_boxed = len({f for f, one in zip(fold, has, strict=True) if one})
    if n_boxed < 2:
        raise DataError(
            f"At least 2 different pictures with boxes are needed for cross-validation, got {sum(has)} picture(s), "
            "some of which may be copies. Give more pictures."
        )
    return [f % n_boxed for f in fold]


def out_of_fold(
    how: Any, reader: Reader, data: BoxData, fold: Sequence[int], progress: Progress, checkpoint: Path | None = None
) -> list[BoxedPicture]:
    """Return the cross-validated boxes of each picture; finished folds are saved."""
    found: dict[str, tuple[BoxRecord, ...]] = {}
    with nullcontext() if checkpoint is None else Journal(beside(checkpoint), FOLDS, force=None) as journal:
        done = {} if journal is None else {row["key"]: row["boxes"] for row in journal.rows}
        for k in range(max(fold) + 1):
            sides = [
                tuple(p for p, f in zip(data.pictures, fold, strict=True) if (f == k) is held) for held in (False, True)
            ]
            train, held = usable(replace(data, pictures=sides[0])), sides[1]
            rows = [[(p.image, [vars(b) for b in p.boxes]) for p in side] for side in (train.pictures, held)]
            text = json.dumps([how.name, asdict(how), reader.base.fingerprint, rows])
            key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            if key not in done:
                detector = fitted(how, reader, train, progress, checkpoint)
                looked = progress.results(
                    held,
                    detector.detect_all([p.image for p in held]),
                    f"Finding objects in held-out pictures, fold {k + 1}",
                )
                done[key] = {p.image: [asdict(b) for b in result.record().boxes] for p, result in looked}
                if journal is not None and checkpoint is not None:
                    remove(checkpoint, CHECKPOINT)
                    journal.add({"key": key, "boxes": done[key]})
            found |= restore(dict[str, tuple[BoxRecord, ...]], done[key], "What a stopped fit left")
    return [replace(p, boxes=found.get(p.image, ())) for p in data.pictures]


def fitted(how: Any, reader: Reader, data: BoxData, progress: Progress, checkpoint: Path | None) -> TrainedDetector:
    """Train a detector on all the given pictures."""
    keeps = {"checkpoint": checkpoint} if "checkpoint" in how.fit.__annotations__ else {}
    finder = how.fit(reader, data, progress=progress, **keeps)
    most = max(MOST, *(len(p.boxes) for p in data.pictures))
    return TrainedDetector(
        how.name, asdict(how), reader.base, data.classes, finder, (0.0,) * len(data.classes), how.zoom, most=most,
        trained_on=f"{data.n_boxes} boxes of {len(data)} pictures", looks=reader,
    )  # fmt: skip


def beside(checkpoint: Path) -> Path:
    """Return the file in which the boxes of finished folds are saved."""
    return checkpoint.with_name(f"{checkpoint.name}-folds.jsonl")


SURE = 1.645
"""Distance of a one-sided 95 % confidence bound from the estimate, in standard errors."""
NEW = 1.96 * 2**0.5
"""Half the width of a 95 % prediction interval for an equally large new set of pictures, in standard errors."""


class Point(NamedTuple):
    """A threshold; ``enough`` says whether it reaches the requested precision."""

    least: float
    enough: bool = True


class Ranked(NamedTuple):
    """The matched boxes that are not ignored, highest score first."""

    score: Float[np.ndarray, " d"]
    right: Bool[np.ndarray, " d"]
    picture: Int[np.ndarray, " d"]
    n_there: int

    @classmethod
    def of(cls, matched: Sequence[Matched]) -> Ranked:
        """Combine the boxes of one or more classes, matched at an overlap of 0.5."""
        score, picture = (np.concatenate([getattr(m, what) for m in matched]) for what in ("score", "picture"))
        right, counts = (np.concatenate([getattr(m, what)[0] for m in matched]) for what in ("right", "counts"))
        use = right | counts
        order = np.flatnonzero(use)[np.argsort(-score[use], kind="stable")]
        return cls(score[order], right[order], picture[order], sum(int(m.n_there.sum()) for m in matched))

    def lower(self, z: float) -> Float[np.ndarray, " d"]:
        """Return Wilson's lower bound of the precision at each rank, with clustering by picture."""
        order = np.argsort(self.picture, kind="stable")
        right, n, hits = self.right.astype(float), np.empty(len(order)), np.empty(len(order))
        first = np.searchsorted(self.picture[order], self.picture[order])
        n[order] = np.arange(len(order)) - first
        before = np.append(0, right[order].cumsum())
        hits[order] = before[:-1] - before[first]
        # Change of the sums of squares and products of counts per picture, for one more box.
        all_ = np.arange(1.0, len(order) + 1)
        p = right.cumsum() / all_
        square = ((2 * hits + 1) * right).cumsum() - 2 * p * (hits + right * (n + 1)).cumsum()
        variance = (square + p**2 * (2 * n + 1).cumsum()) / all_**2
        effect = np.maximum(1, variance / np.maximum(p * (1 - p) / all_, 1e-12))
        return wilson(p, all_ / effect, z)[0]


def calibrated(
    there: Sequence[BoxedPicture],
    found: Sequence[BoxedPicture],
    fold: Sequence[int],
    classes: Sequence[str],
    precision: float | None = None,
) -> list[dict[str, Any]]:
    """Return the threshold of each class, with cross-validated precision and recall."""
    given, boxes = ([boxes_of(p, classes) for p in side] for side in (there, found))
    matched = average_precision(given, boxes, classes).matched
    together = best_point(matched, precision) or Point(0.5)
    of = np.array(fold)
    rows = []
    for label, own in zip(classes, matched, strict=True):
        n = int(own.n_there.sum())
        point = best_point([own], precision) if n >= FEWEST else None
        chosen = point or together
        reached = _elsewhere(own, of, precision) if point is not None else dict.fromkeys(FIGURES)
        promised = None if precision is None or point is None else point.enough
        about = {"label": label, "n": n, "threshold": chosen.least, "own": point is not None, "promised": promised}
        rows.append({**about, **reached})
    return rows


FIGURES = ("precision", "precision_interval", "recall", "recall_interval")


def _elsewhere(own: Matched, fold: Int[np.ndarray, " p"], precision: float | None) -> dict[str, Any]:
    """Return the precision and recall of thresholds chosen on the other folds."""
    least = np.full(len(fold), np.inf)
    for one in np.unique(fold):
        which = fold != one
        on = which[own.picture]
        others = Matched(own.picture[on], own.score[on], own.right[:, on], own.counts[:, on], own.n_there * which)
        point = best_point([others], precision)
        least[fold == one] = 0.5 if point is None else point.least
    kept = own.score >= least[own.picture]
    right, counts = own.right[0] & kept, (own.right[0] | own.counts[0]) & kept
    hits, n_found = (np.bincount(own.picture[which], minlength=len(fold)) for which in (right, counts))
    figures: list[Any] = []
    for all_ in (n_found, own.n_there):
        p, n = part(hits, all_)
        apart = between([part(hits[fold == k], all_[fold == k]) for k in np.unique(fold)])
        low, high = wilson(p, 1 / (1 / n + apart / 2 / max(p * (1 - p), 1e-12)), NEW) if n else (0.0, 1.0)
        figures += [round(p, 4), [round(float(v), 4) for v in (low, high)]]
    return dict(zip(FIGURES, figures, strict=True))


def part(hits: Int[np.ndarray, " p"], all_: Int[np.ndarray, " p"]) -> tuple[float, float]:
    """Return a proportion over pictures and its effective sample size; both are 0 without pictures."""
    total = int(all_.sum())
    if not total:
        return 0.0, 0.0
    p, n = float(hits.sum() / total), len(all_)
    variance = ((hits - p * all_) ** 2).sum() / total**2 * n / max(n - 1, 1)
    effect = max(1.0, variance / max(p * (1 - p) / total, 1e-12))
    return p, total / effect


def between(folds: Sequence[tuple[float, float]]) -> float:
    """Return the variance of a proportion between the folds' trainings, minus the sampling variance."""
    known = [(p, p * (1 - p) / n) for p, n in folds if n]
    if len(known) < 2:
        return 0.0
    values, own = np.array(known).T
    return max(0.0, float(values.var(ddof=1) - own.mean())) * (1 + 1 / len(known))


def best_point(matched: Sequence[Matched], precision: float | None) -> Point | None:
    """Return the best threshold, or ``None`` if no box is right."""
    boxes = Ranked.of(matched)
    scores, n_there = boxes.score, boxes.n_there
    if not boxes.right.any() or not n_there:
        return None
    hits, all_ = boxes.right.cumsum(), np.arange(1, len(scores) + 1)
    # Boxes of equal scores are kept or left together.
    last = np.append(scores[1:] < scores[:-1], True)
    value, enough = 2 * hits / (all_ + n_there), np.ones(len(scores), bool)
    if precision is not None:
        lower = boxes.lower(SURE)
        enough = lower >= precision
        value = np.where(enough, hits, -1) if (enough & last).any() else lower
    place = int(np.where(last, value, -np.inf).argmax())
    below = scores[place + 1] if place + 1 < len(scores) else 0.0
    least = round(float(scores[place] + below) / 2, 6)
    return Point(least, bool(enough[place]))
