"""How good a detector's boxes are: average precision with intervals, beside boxes that know less."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..encoders.base import Encoder
from ..errors import DataError
from ..metrics.average_precision import AveragePrecision, PictureBoxes, average_precision, boxes_of, confusion, mean
from ..pictures.boxes import BoxData, BoxedPicture
from ..pictures.samples import some
from ..report.box_report import render_box_report
from ..report.paging import Page
from .box_controls import controls

N_DRAWS = 1000
LEAST = 0.5
"""Score from which a box counts in the table of confusions."""


class BoxReport(Page):
    """What :func:`evaluate_boxes` measured; displays itself in a notebook, and ``save("report.html")`` writes it."""

    def to_html(self) -> str:
        return render_box_report(self.data)


def evaluate_boxes(
    data: BoxData,
    found: BoxData,
    *,
    encoder: Encoder | None = None,
    novel: Sequence[str] = (),
    least: float = LEAST,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> BoxReport:
    """Average precision of boxes, per class, with bootstrap intervals over pictures and with controls.

    AP is COCO's: the mean over ten overlaps and over classes; AP50 asks for half. A control is what less knowledge
    reaches on the same pictures; a difference is real where its interval, over the same drawings of pictures, leaves
    out 0. Drawings are taken less their mean, which leans upwards.

    Cost: no pass, but one look at each picture for the control by feature norms, where an encoder is given.
    """
    classes = data.classes
    known = set(classes)
    if unknown := [n for n in novel if n not in known]:
        raise DataError(
            f"{unknown[0]!r} is no class of the data. One of {', '.join(classes)} was expected. Correct it."
        )
    there = [boxes_of(p, classes) for p in data.pictures]
    matched, notes = _found(data, found, classes)
    own = average_precision(there, matched, classes)
    draws = own.resampled(n_draws, seed)
    any_name = _nameless(there, matched)
    rows = _controls(data, there, matched, own, draws, encoder, seed)
    table = confusion(there, matched, len(classes), least)
    return BoxReport(
        {
            "n_pictures": len(data),
            "n_boxes": sum(int((~p.ignored).sum()) for p in there),
            "n_found": sum(len(p.boxes) for p in matched),
            "classes": list(classes),
            **_figures(own, draws, range(len(classes))),
            "any_name": _figures(any_name, any_name.resampled(n_draws, seed), range(1)),
            "groups": _groups(own, draws, classes, novel),
            "per_class": [
                {
                    "label": c,
                    "n": int(own.matched[k].n_there.sum()),
                    "novel": c in novel,
                    **_figures(own, draws, [k]),
                    "precision": [_number(v) for v in own.curve(c)],
                }
                for k, c in enumerate(classes)
            ],
            "controls": rows,
            "confusion": {"least": least, "labels": [*classes, "nothing"], "table": table.tolist()},
            "n_draws": n_draws,
            "notes": [*data.notes, *notes],
        }
    )


def _found(data: BoxData, found: BoxData, classes: Sequence[str]) -> tuple[list[PictureBoxes], list[str]]:
    """What was found in each picture of the data, and what the user should know of it."""
    if not set(classes) & set(found.classes):
        raise DataError(
            f"The data has the classes {some(classes)}, and what was found {some(found.classes)}. The same names were "
            "expected. Name the classes alike."
        )
    if any(b.score is None for p in found.pictures for b in p.boxes):
        raise DataError(
            "A box that was found has no score. What seewhy detect or another detector wrote was expected, since the "
            "surest count first. Give that."
        )
    whole = {os.path.realpath(p.image): p for p in found.pictures}
    named = {os.path.basename(p.image): p for p in found.pictures}
    same = len(named) == len(found.pictures)
    matched, without = [], []
    for picture in data.pictures:
        other = whole.get(os.path.realpath(picture.image))
        other = other or (named.get(os.path.basename(picture.image)) if same else None)
        if other is None:
            without.append(picture.image)
        matched.append(boxes_of(other or BoxedPicture(picture.image, None), classes))
    notes = [f"{len(without)} picture(s) were not looked at, and count as without boxes: {some(without, 3)}"]
    notes = notes if without else []
    known = set(classes)
    strange = [c for c in found.classes if c not in known]
    if strange:
        notes.append(
            f"{len(strange)} class(es) that were found are none of the data's, and are left out: {some(strange)}"
        )
    return matched, notes


def _nameless(there: Sequence[PictureBoxes], found: Sequence[PictureBoxes]) -> AveragePrecision:
    """The same where any name is right: whether things are found at all."""
    given, boxes = ([replace(p, labels=np.zeros_like(p.labels)) for p in side] for side in (there, found))
    return average_precision(given, boxes, ("any",))


def _figures(measured: AveragePrecision, draws: np.ndarray, which: Sequence[int]) -> dict[str, Any]:
    """AP and AP50 of some classes, with their intervals."""
    values, drawn = measured.per_class()[0, list(which)], draws[:, list(which)]
    return {
        "ap": _number(mean(values)),
        "ap_interval": _interval([mean(d) for d in drawn], mean(values)),
        "ap50": _number(mean(values[:, 0])),
        "ap50_interval": _interval([mean(d[:, 0]) for d in drawn], mean(values[:, 0])),
    }


def _groups(
    own: AveragePrecision, draws: np.ndarray, classes: Sequence[str], novel: Sequence[str]
) -> list[dict[str, Any]]:
    if not novel:
        return []
    new = set(novel)
    parts = {"base": [k for k, c in enumerate(classes) if c not in new]}
    parts["novel"] = [k for k, c in enumerate(classes) if c in new]
    return [{"name": n, "n_classes": len(w), **_figures(own, draws, w)} for n, w in parts.items() if w]


def _controls(
    data: BoxData,
    there: Sequence[PictureBoxes],
    found: Sequence[PictureBoxes],
    own: AveragePrecision,
    draws: np.ndarray,
    encoder: Encoder | None,
    seed: int,
) -> list[dict[str, Any]]:
    """Each control's numbers, and how far the detector is above its best drawing."""
    rows = []
    for control in controls(data.pictures, there, found, len(data.classes), encoder, seed):
        measured = [average_precision(there, boxes, data.classes) for boxes in control.draws]
        reached = [m.ap50 for m in measured]
        best = measured[int(np.nanargmax(reached))] if not all(np.isnan(reached)) else measured[0]
        theirs = best.resampled(len(draws), seed)
        gaps = [mean(a[:, 0]) - mean(b[:, 0]) for a, b in zip(draws, theirs, strict=True)]
        interval = _interval(gaps, own.ap50 - best.ap50, least=-1.0)
        rows.append(
            {
                "name": control.name,
                "n_draws": len(reached),
                "ap": _number(mean(np.array([m.ap for m in measured]))),
                "ap50": _number(mean(np.array(reached))),
                "ap50_best": _number(best.ap50),
                "any_name": _number(_nameless(there, control.draws[0]).ap50),
                "above_best": _number(own.ap50 - best.ap50),
                "above_best_interval": interval,
                "real": interval is not None and interval[0] > 0,
            }
        )
    return rows


def _interval(values: Sequence[float], about: float, least: float = 0.0) -> list[float] | None:
    """95 % of the drawings, about the figure of the pictures: AP of a drawing that has some twice is too large."""
    known = np.array([v for v in values if not np.isnan(v)])
    if not len(known):
        return None
    ends = about + np.percentile(known - known.mean(), [2.5, 97.5])
    return [round(float(v), 6) for v in ends.clip(least, 1.0)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
