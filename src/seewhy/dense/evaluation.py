"""Evaluation of segmenters and detectors, with confidence intervals and controls."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked
from ..errors import DataError, InputError
from ..metrics.average_precision import AveragePrecision, PictureBoxes, average_precision, boxes_of, confusion, mean
from ..pictures.boxes import BoxData, BoxedPicture
from ..pictures.pixel_classes import MaskedPictures
from ..pictures.samples import some
from ..progress import Progress
from ..report.blocks import Document
from ..report.documents import box_document, mask_document
from ..report.paging import Page
from . import miou
from .finders import Segmenter
from .linear import Linear

OWN, SHUFFLED, RANDOM = "the model", "names shuffled", "random texts"
ALWAYS, PROBE = "always the commonest class", "a linear probe of each cell"
GRID = "the best that the grid allows"
WHAT = {
    OWN: "as it is",
    SHUFFLED: "class names shuffled; the best of {n} draws, {mean} on average",
    RANDOM: "random directions instead of texts; the best of {n} draws, {mean} on average",
    ALWAYS: "the class with the most pixels in these pictures, predicted for every pixel",
    PROBE: "trained on the training pictures, without words",
    GRID: "the true classes in each grid cell, so all errors come from the coarse grid",
}
"""Meaning of each row in the table of masks."""
LEAST, MIDDLE = 0.5, 0.8
"""Lowest score of a box in the confusion table, and side of the central control box as a share of the side of the
picture.
"""


class SegmentationReport(Page):
    """The result of :func:`evaluate_segmenter`, displayed in a notebook; ``data`` is its JSON (docs/json.md)."""

    def document(self) -> Document:
        return mask_document(self.data)


class BoxReport(Page):
    """The result of :func:`evaluate_boxes`, displayed in a notebook; ``save("report.html")`` writes a page."""

    def document(self) -> Document:
        return box_document(self.data)


@checked
def evaluate_segmenter(
    segmenter: Segmenter,
    data: MaskedPictures,
    *,
    train: MaskedPictures | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SegmentationReport:
    """Compute the mean intersection over union of a segmenter, with confidence intervals and controls.

    Args:
        segmenter: the segmenter to evaluate.
        data: pictures with masks.
        train: other pictures with masks, on which a linear probe is trained for comparison.
        seed: seed for resampling, shuffled names and random texts.
        progress: progress callback.
    """
    progress = progress or Progress()
    data = in_order(data, segmenter.classes)
    tables, notes = _mask_tables(segmenter, _arms(segmenter, train, seed, progress), data, progress)
    rows, own = _mask_rows(tables, seed), tables[OWN]
    classes = miou.per_class(own, segmenter.classes, seed)
    notes = [*data.notes, *(() if train is None else train.notes), *notes]
    if absent := [c["label"] for c in classes if c["iou"] is None]:
        notes.append(f"{len(absent)} class(es) without a pixel in these masks are left out: {', '.join(absent)}")
    reached, shuffle = rows[0]["miou"], rows[1]["miou"]
    return SegmentationReport(
        {
            "method": segmenter.method,
            "encoder": segmenter.base.name,
            "fingerprint": segmenter.base.fingerprint,
            "input": list(segmenter.encoder.transform.input_size),
            "n": len(own),
            "miou": reached,
            "interval": rows[0]["interval"],
            "accuracy": miou.accuracy(own),
            "above_shuffled": reached / shuffle if shuffle else None,
            "classes": classes,
            "rows": rows,
            "notes": notes,
            "failures": [f.to_json() for f in progress.failures],
        }
    )


def in_order(data: MaskedPictures, classes: tuple[str, ...]) -> MaskedPictures:
    if set(data.classes) != set(classes):
        more, fewer = sorted(set(data.classes) - set(classes)), sorted(set(classes) - set(data.classes))
        raise InputError(
            "The segmenter and the masks must have the same classes. Only the masks have "
            f"{', '.join(map(repr, more)) or 'no class'}, and only the segmenter has "
            f"{', '.join(map(repr, fewer)) or 'no class'}. Give --labels with the class names of the masks."
        )
    values = {value: classes.index(data.classes[place]) for value, place in data.values.items()}
    return replace(data, classes=classes, values=values)


def _arms(segmenter: Segmenter, train: MaskedPictures | None, seed: int, progress: Progress) -> dict[str, Segmenter]:
    """Return the segmenter and its controls by name."""
    arms = {OWN: segmenter}
    for i in range(miou.N_RANDOM):
        if (other := segmenter.scorer.random(seed + i)) is not None:
            arms[f"{RANDOM} {i}"] = replace(segmenter, scorer=other, presence=None)
    if train is not None:
        how = Linear(zoom=segmenter.zoom, seed=seed)
        probe = how.fit(segmenter.base, in_order(train, segmenter.classes), progress=progress)
        arms[PROBE] = replace(probe, levels=segmenter.levels)
    return arms


def _mask_tables(
    segmenter: Segmenter, arms: Mapping[str, Segmenter], data: MaskedPictures, progress: Progress
) -> tuple[dict[str, Tensor], list[str]]:
    """Compute the confusion matrices of each method, and notes on mask values without a class name."""
    k = len(segmenter.classes)
    tables: dict[str, list[Tensor]] = defaultdict(list)
    unnamed, n_pixels = Counter[int](), 0
    for looked, truth, without in segmenter.reader.with_masks(data, progress, "Labelling pixels"):
        unnamed.update(without)
        n_pixels += truth.size
        for name, arm in arms.items():
            scores = arm.scores(looked)
            mask, _ = arm.pixels(scores, looked, arm.named_in(looked))
            tables[name].append(miou.pixel_confusion(truth, mask, k))
            if name == OWN:
                best = miou.ceiling(truth, k, (scores.shape[1], scores.shape[2]), arm.reader.resolution(looked))
                tables[GRID].append(miou.pixel_confusion(truth, best, k))
    if not tables:
        raise DataError(
            f"None of the {len(data)} pictures could be read together with its mask. The messages above say why."
        )
    values = ", ".join(f"{value} ({100 * (n / n_pixels):.1f} % of the pixels)" for value, n in unnamed.most_common(5))
    note = f"{len(unnamed)} value(s) of the masks have no name and are not counted: {values}"
    stacked = {name: torch.stack(rows) for name, rows in tables.items()}
    stacked[ALWAYS] = miou.commonest(stacked[OWN])
    return stacked, [note] if unnamed else []


def _mask_rows(tables: Mapping[str, Tensor], seed: int) -> list[dict[str, Any]]:
    lines = [(OWN, tables[OWN], WHAT[OWN])]
    drawn = [tables[name] for name in tables if name.startswith(RANDOM)]
    for name, several in ((SHUFFLED, miou.shuffled(tables[OWN], seed)), (RANDOM, drawn)):
        if several:
            each = miou.compared(several, seed).values
            what = WHAT[name].format(n=len(several), mean=f"{100 * float(each.mean()):.1f}")
            lines.append((name, several[int(each.argmax())], what))
    lines += [(name, tables[name], WHAT[name]) for name in (ALWAYS, PROBE, GRID) if name in tables]
    judged, rows = miou.compared([table for _, table, _ in lines], seed), []
    for i, (name, _, what) in enumerate(lines):
        difference, interval, real = judged.difference(0, i)
        row = {"name": name, "what": what, "control": name not in (OWN, PROBE, GRID)}
        row |= {"miou": float(judged.values[i]), "interval": list(judged.interval(i))}
        beside = {"difference": difference, "difference_interval": list(interval), "real": real}
        rows.append(row | (beside if i else dict.fromkeys(beside)))
    return rows


def evaluate_boxes(
    data: BoxData,
    found: BoxData,
    *,
    novel: Sequence[str] = (),
    least: float = LEAST,
    n_draws: int = miou.N_DRAWS,
    seed: int = 0,
) -> BoxReport:
    """Compute the average precision of predicted boxes, with bootstrap intervals and controls.

    AP is COCO's mean over ten overlap thresholds and over classes; AP50 uses the overlap threshold 0.5. A control is a
    detector with less information, for example one that draws every box in the centre. A difference from a control
    counts as real if its paired bootstrap interval excludes 0. Intervals are centred on the estimate, because bootstrap
    means are biased upwards.

    Args:
        data: true boxes.
        found: predicted boxes with scores.
        novel: classes that the detector was not trained on.
        least: lowest score of a box in the confusion table.
        n_draws: number of bootstrap resamples.
        seed: seed for resampling and random boxes.
    """
    classes = data.classes
    if unknown := [n for n in novel if n not in set(classes)]:
        raise DataError(f"`novel` must be classes of the data, got {unknown[0]!r}. The data has {', '.join(classes)}.")
    there = [boxes_of(p, classes) for p in data.pictures]
    matched, notes = _matched(data, found)
    own, any_name = average_precision(there, matched, classes), _nameless(there, matched)
    draws = own.resampled(n_draws, seed)
    groups = {"base": [k for k, c in enumerate(classes) if c not in set(novel)]}
    groups["novel"] = [k for k, c in enumerate(classes) if c in set(novel)]
    rows = []
    for k, c in enumerate(classes):
        head = {"label": c, "n": int(own.matched[k].n_there.sum()), "novel": c in novel}
        rows.append({**head, **_figures(own, draws, [k]), "precision": [_number(v) for v in own.curve(c)]})
    controls = box_controls(data.pictures, there, matched, len(classes), seed)
    return BoxReport(
        {
            "n_pictures": len(data),
            "n_boxes": sum(int((~p.ignored).sum()) for p in there),
            "n_found": sum(len(p.boxes) for p in matched),
            "classes": list(classes),
            **_figures(own, draws, range(len(classes))),
            "any_name": _figures(any_name, any_name.resampled(n_draws, seed), range(1)),
            "groups": [
                {"name": name, "n_classes": len(which), **_figures(own, draws, which)}
                for name, which in groups.items()
                if novel and which
            ],
            "per_class": rows,
            "controls": [_beside(name, boxes, there, own, draws, seed) for name, boxes in controls],
            "confusion": {
                "least": least,
                "labels": [*classes, "nothing"],
                "table": confusion(there, matched, len(classes), least).tolist(),
            },
            "n_draws": n_draws,
            "notes": [*data.notes, *notes],
        }
    )


def _matched(data: BoxData, found: BoxData) -> tuple[list[PictureBoxes], list[str]]:
    """Return the predicted boxes of each picture, and notes for the user."""
    known = set(data.classes)
    if not known & set(found.classes):
        raise DataError(
            f"The predicted boxes and the data must share class names. The data has {some(data.classes)}; the "
            f"predicted boxes have {some(found.classes)}."
        )
    if any(b.score is None for p in found.pictures for b in p.boxes):
        raise DataError(
            "Each predicted box must have a score. Give a file that seewhy detect or another detector wrote."
        )
    whole = {os.path.realpath(p.image): p for p in found.pictures}
    named = {os.path.basename(p.image): p for p in found.pictures}
    named = named if len(named) == len(found.pictures) else {}
    matched, without, notes = [], [], []
    for picture in data.pictures:
        other = whole.get(os.path.realpath(picture.image)) or named.get(os.path.basename(picture.image))
        without += [picture.image] if other is None else []
        matched.append(boxes_of(other or BoxedPicture(picture.image, None), data.classes))
    if without:
        notes.append(
            f"{len(without)} picture(s) have no detections in the file and count as without boxes: {some(without, 3)}"
        )
    if strange := [c for c in found.classes if c not in known]:
        notes.append(f"{len(strange)} detected class(es) do not occur in the data and are left out: {some(strange)}")
    return matched, notes


def _nameless(there: Sequence[PictureBoxes], found: Sequence[PictureBoxes]) -> AveragePrecision:
    """Compute average precision as if all boxes had the same class."""
    given, boxes = ([replace(p, labels=np.zeros_like(p.labels)) for p in side] for side in (there, found))
    return average_precision(given, boxes, ("any",))


def _figures(measured: AveragePrecision, draws: np.ndarray, which: Sequence[int]) -> dict[str, Any]:
    values, drawn = measured.per_class()[0, list(which)], draws[:, list(which)]
    figures: dict[str, Any] = {}
    for name, at in (("ap", slice(None)), ("ap50", 0)):
        value = mean(values[:, at])
        figures |= {name: _number(value), f"{name}_interval": _interval([mean(d[:, at]) for d in drawn], value)}
    return figures


def _beside(
    name: str,
    boxes: Sequence[Sequence[PictureBoxes]],
    there: Sequence[PictureBoxes],
    own: AveragePrecision,
    draws: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Compute the AP of a control, and its difference from the AP of the detector."""
    measured = [average_precision(there, drawn, own.classes) for drawn in boxes]
    reached = np.array([m.ap50 for m in measured])
    best = measured[0] if np.isnan(reached).all() else measured[int(np.nanargmax(reached))]
    theirs = best.resampled(len(draws), seed)
    gaps = [mean(a[:, 0]) - mean(b[:, 0]) for a, b in zip(draws, theirs, strict=True)]
    interval = _interval(gaps, own.ap50 - best.ap50, least=-1.0)
    return {
        "name": name, "n_draws": len(measured), "ap": _number(mean(np.array([m.ap for m in measured]))),
        "ap50": _number(mean(reached)), "ap50_best": _number(best.ap50),
        "any_name": _number(_nameless(there, boxes[0]).ap50), "above_best": _number(own.ap50 - best.ap50),
        "above_best_interval": interval, "real": interval is not None and interval[0] > 0,
    }  # fmt: skip


def _interval(values: Sequence[float], about: float, least: float = 0.0) -> list[float] | None:
    """Return the 95 % bootstrap interval, centred on the estimate."""
    known = np.array([v for v in values if not np.isnan(v)])
    if not len(known):
        return None
    ends = about + np.percentile(known - known.mean(), [2.5, 97.5])
    return [round(float(v), 6) for v in ends.clip(least, 1.0)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def box_controls(
    pictures: Sequence[BoxedPicture],
    there: Sequence[PictureBoxes],
    found: Sequence[PictureBoxes],
    n_classes: int,
    seed: int,
) -> Iterator[tuple[str, list[list[PictureBoxes]]]]:
    """Yield each control with its name and its boxes for several random seeds."""
    counts = Counter(int(k) for p in there for k in p.labels).most_common(1)
    label = counts[0][0] if counts else 0
    if n_classes > 1:
        rng, orders = np.random.default_rng(seed), list[np.ndarray]()
        while len(orders) < miou.N_SHUFFLES:
            order = rng.permutation(n_classes)
            orders += [order] if (order != np.arange(n_classes)).any() else []
        yield "names shuffled", [[replace(p, labels=order[p.labels]) for p in found] for order in orders]
        yield "commonest class", [[replace(p, labels=np.full_like(p.labels, label)) for p in found]]
    edges = np.array([1 - MIDDLE, 1 - MIDDLE, 1 + MIDDLE, 1 + MIDDLE]) / 2
    middle = [PictureBoxes.of([tuple(edges * ((p.size or (1, 1)) * 2))], [label]) for p in pictures]
    yield "middle of the picture", [middle]
