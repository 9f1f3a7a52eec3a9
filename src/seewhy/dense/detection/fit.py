"""``seewhy.fit_detector``: pictures with boxes become a detector, with thresholds from pictures held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...arguments import checked
from ...attributions.settings import configured
from ...encoders.base import Encoder
from ...encoders.find import encoder as find
from ...errors import DataError, InputError
from ...pictures.apart import split_pairs
from ...pictures.boxes import BoxData, BoxedPicture, load_boxes
from ...pictures.samples import Sample, gathered, some
from ...progress import Progress
from .. import detectors
from ..box_evaluation import evaluate_boxes
from .thresholds import calibrated
from .trained import TrainedDetector, digests

N_DRAWS = 200
"""Drawings of the pictures held out, for intervals."""
MOST = 100
"""Boxes kept in a picture, unless more are there in one that is learnt from."""


@checked
def fit_detector(
    data: BoxData | str | Path,
    encoder: Encoder | str = "lite0",
    *,
    method: str = "linear",
    pictures: str | Path | None = None,
    held_out: float = 0.2,
    precision: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    **parameters: Any,
) -> TrainedDetector:
    """Train a detector on pictures with boxes, and calibrate a threshold for each class on pictures held out.

    Args:
        data: boxes that were loaded, or where they are (:func:`seewhy.load_boxes`).
        encoder: what looks, frozen, or its name.
        method: a registered name.
        pictures: the folder of the pictures of a file of boxes; left out, they are looked for nearby.
        held_out: part of the pictures for the thresholds; copies stay together, and no class is held out whole.
        precision: that boxes of a class are to have; left out, F1 is to be largest.
        seed: of the pictures held out.
        progress: hears of progress, notes and failures.
        checkpoint: where a method that trains in steps goes on from after it was stopped.
        **parameters: those of the method, for example ``zoom=4``.

    Raises:
        DataError: no picture is there, no box can be used, or none can be held out.
        InputError: a parameter is out of its range, or the method is not trained.
        UnknownNameError: there is no such method, or it has no such parameter.
    """
    progress = progress or Progress()
    how = method_for(method, parameters)
    if not 0 < held_out < 1 or (precision is not None and not 0 < precision <= 1):
        raise InputError(
            f"fit_detector was given held_out={held_out:g} and precision={precision}. A part above 0 and below 1, and "
            "a precision above 0 and not above 1, were expected. Change them."
        )
    given = data if isinstance(data, BoxData) else load_boxes(data, pictures=pictures)
    for note in given.notes:
        progress.note(note)
    train, held = split_boxes(usable(given), held_out, seed)
    looks = encoder if isinstance(encoder, Encoder) else find(encoder)
    keeps = {"checkpoint": checkpoint} if "checkpoint" in how.fit.__annotations__ else {}
    finder = how.fit(looks, train, progress=progress, **keeps)
    most = max(MOST, *(len(p.boxes) for p in train.pictures))
    made = TrainedDetector(
        how.name, asdict(how), looks, train.classes, finder, (0.0,) * len(train.classes), how.zoom, most=most,
        trained_on=f"{train.n_boxes} boxes of {len(train)} pictures",
        pictures=digests(p.image for p in (*train.pictures, *held.pictures)),
    )  # fmt: skip
    return with_thresholds(made, held, precision, progress)


def method_for(name: str, parameters: dict[str, Any]) -> Any:
    """A method that is trained, with its parameters.

    Raises:
        InputError: it is not trained, or a value is not one of the parameter's.
        UnknownNameError: there is no such method or parameter.
    """
    found: Any = detectors[name]
    if not hasattr(found, "fit"):
        able = ", ".join(n for n in detectors if hasattr(detectors[n], "fit"))
        raise InputError(
            f"The detector {name} is not trained. One of {able} was expected. Use it with detect --detector {name}."
        )
    how: Any = configured(found, parameters)
    return how


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


def split_boxes(data: BoxData, held_out: float, seed: int) -> tuple[BoxData, BoxData]:
    """Pictures to learn from and pictures held out; a class that would be held out whole is learnt from instead.

    Raises:
        DataError: all pictures are copies of one.
    """
    if len(data) < 2:
        raise DataError(
            f"{len(data)} picture with boxes was given. Two or more were expected, as some are held out to find the "
            "thresholds. Give more pictures."
        )
    whole = gathered([Sample(p.image) for p in data.pictures])
    names = {sample.image for sample in split_pairs(whole, held_out, seed)[1].items}
    train = [p for p in data.pictures if p.image not in names]
    held: list[BoxedPicture] = []
    known = {b.label for p in train for b in p.boxes if not b.ignored}
    for picture in (p for p in data.pictures if p.image in names):
        new = {b.label for b in picture.boxes if not b.ignored} - known
        (train if new else held).append(picture)
        known |= new
    if not held:
        raise DataError(
            f"Every class is on one picture alone, of {len(data)}. A second picture of some class was expected, as "
            "pictures are held out to find the thresholds. Give more pictures."
        )
    return replace(data, pictures=tuple(train)), replace(data, pictures=tuple(held))


def with_thresholds(
    detector: TrainedDetector, held: BoxData, precision: float | None, progress: Progress
) -> TrainedDetector:
    """The detector with a threshold for each class, from pictures that it has not learnt from."""
    there: list[BoxedPicture] = []
    found: list[BoxedPicture] = []
    looked = detector.keeping(least=0.0).detect_all([p.image for p in held.pictures])
    for picture, one in progress.results(held.pictures, looked, "Calibrating"):
        there.append(picture)
        found.append(one.record())
    rows = calibrated(there, found, detector.classes, precision)
    for note in _notes(rows, precision):
        progress.note(note)
    calibration = {"n_pictures": len(there), "precision": precision, "classes": rows}
    if there:
        judged = replace(held, pictures=tuple(there), notes=())
        calibration |= measured(judged, BoxData(tuple(found), detector.classes))
    return replace(detector, thresholds=tuple(r["threshold"] for r in rows), calibration=calibration)


def measured(held: BoxData, found: BoxData) -> dict[str, Any]:
    """AP50 on pictures held out, and the controls that it is above of; no threshold counts there."""
    data = evaluate_boxes(held, found, n_draws=N_DRAWS).data
    controls = [{key: row[key] for key in ("name", "ap50_best", "real")} for row in data["controls"]]
    return {"ap50": data["ap50"], "ap50_interval": data["ap50_interval"], "controls": controls}


def _notes(rows: Sequence[dict[str, Any]], precision: float | None) -> list[str]:
    """What the user should know of the thresholds."""
    notes = []
    if few := [r["label"] for r in rows if not r["own"]]:
        notes.append(
            f"{len(few)} class(es) have too few boxes held out for a threshold of their own, or none was found, and "
            f"have that of all together: {some(few)}"
        )
    if precision is not None and (below := [r["label"] for r in rows if r["own"] and r["precision"] < precision]):
        notes.append(f"{len(below)} class(es) reach a precision of {precision:g} at no threshold: {some(below)}")
    return notes
