"""Average precision of boxes, as in COCO (Lin et al. 2014, arXiv:1405.0312), with bootstrap resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ..pictures.boxes import BoxedPicture

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Thresholds of intersection over union; AP is the mean over them."""
RECALLS = np.linspace(0, 1, 101)
"""Recalls at which precision is interpolated."""
MOST = 100
"""Largest number of detections per class and picture, as in COCO."""


@dataclass(frozen=True, eq=False)
class PictureBoxes:
    """True or detected boxes of one picture."""

    boxes: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]
    ignored: Bool[np.ndarray, " n"]

    @classmethod
    def of(
        cls,
        boxes: Sequence[Sequence[float]],
        labels: Sequence[int],
        scores: Sequence[float] | None = None,
        ignored: Sequence[bool] | None = None,
    ) -> PictureBoxes:
        """Build from lists; ``scores`` default to 1."""
        n = len(boxes)
        sure = np.ones(n) if scores is None else np.array(scores, np.float64)
        spared = np.zeros(n, bool) if ignored is None else np.array(ignored, bool)
        return cls(np.array(boxes, np.float64).reshape(n, 4), np.array(labels, np.int64), sure, spared)


def boxes_of(picture: BoxedPicture, classes: Sequence[str]) -> PictureBoxes:
    """Return the boxes of a picture whose label is in ``classes``."""
    place = {c: k for k, c in enumerate(classes)}
    rows = [
        (b.box, place[b.label], 1.0 if b.score is None else b.score, b.ignored)
        for b in picture.boxes
        if b.label in place
    ]
    boxes, labels, scores, ignored = zip(*rows, strict=True) if rows else ((), (), (), ())
    return PictureBoxes.of(boxes, labels, scores, ignored)


@dataclass(frozen=True, eq=False)
class Matched:
    """Detected boxes of one class in all pictures, highest score first."""

    picture: Int[np.ndarray, " d"]
    score: Float[np.ndarray, " d"]
    right: Bool[np.ndarray, "t d"]
    counts: Bool[np.ndarray, "t d"]
    n_there: Int[np.ndarray, " p"]

    def precision(self, weights: Float[np.ndarray, "r p"] | None = None) -> Float[np.ndarray, "r t 101"]:
        """Return the precision at each recall, for each resample and overlap; NaN for a class without true boxes."""
        weights = np.ones((1, len(self.n_there))) if weights is None else weights
        there = weights @ self.n_there
        found = np.zeros((len(weights), len(self.right), len(RECALLS)))
        drawn = weights[:, self.picture]
        for t, (right, counts) in enumerate(zip(self.right, self.counts, strict=True)):
            if not len(right):
                continue
            hits, all_ = (drawn * right).cumsum(1), (drawn * counts).cumsum(1)
            precise = hits / np.maximum(all_, np.spacing(1))
            precise = np.maximum.accumulate(precise[:, ::-1], axis=1)[:, ::-1]
            recall = hits / np.maximum(there, np.spacing(1))[:, None]
            for r in range(len(weights)):
                place = np.searchsorted(recall[r], RECALLS, "left")
                inside = place < recall.shape[1]
                found[r, t, inside] = precise[r, place[inside]]
        found[there == 0] = np.nan
        return found


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """Average precision of detected boxes."""

    classes: tuple[str, ...]
    matched: tuple[Matched, ...] = field(repr=False)
    n_pictures: int

    def per_class(self, weights: Float[np.ndarray, "r p"] | None = None) -> Float[np.ndarray, "r k t"]:
        """Return the AP of each class at each overlap; NaN for a class without true boxes."""
        return np.stack([m.precision(weights).mean(2) for m in self.matched], 1)

    @property
    def ap(self) -> float:
        """Mean AP over classes and overlaps."""
        return mean(self.per_class()[0])

    @property
    def ap50(self) -> float:
        """Mean AP over classes at an overlap of 0.5."""
        return mean(self.per_class()[0, :, 0])

    def curve(self, label: str, overlap: int = 0) -> Float[np.ndarray, " 101"]:
        """Return the precision at recalls 0, 0.01, …, 1 for one class."""
        return self.matched[self.classes.index(label)].precision()[0, overlap]

    def resampled(self, n: int, seed: int) -> Float[np.ndarray, "r k t"]:
        """Return the AP of each class at each overlap in ``n`` bootstrap resamples of the pictures."""
        drawn = np.random.default_rng(seed).multinomial(self.n_pictures, np.ones(self.n_pictures) / self.n_pictures, n)
        return self.per_class(drawn.astype(np.float64))


def mean(values: Float[np.ndarray, " ..."]) -> float:
    """Return the mean of all values except NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def average_precision(
    there: Sequence[PictureBoxes], found: Sequence[PictureBoxes], classes: Sequence[str]
) -> AveragePrecision:
    """Match detected with true boxes and compute average precision, as pycocotools' ``COCOeval`` does.

    Detections are matched in descending order of score, each to the unmatched true box with the largest overlap above
    the threshold. Ignored true boxes are matched last, and an ignored box may be matched several times. The overlap
    with an ignored box is the intersection divided by the area of the detected box.
    """
    own, given = _joined(found, len(classes), MOST), _joined(there, len(classes))
    right, counts = _match(own, given)
    real = given.group[~given.ignored]
    n_there = np.bincount(real, minlength=len(classes) * len(there)).reshape(len(classes), len(there))
    matched = []
    for k in range(len(classes)):
        part = slice(*np.searchsorted(own.group, [k * len(there), (k + 1) * len(there)]))
        order = np.argsort(-own.scores[part], kind="stable")
        picture, scores = own.group[part][order] - k * len(there), own.scores[part][order]
        matched.append(Matched(picture, scores, right[:, part][:, order], counts[:, part][:, order], n_there[k]))
    return AveragePrecision(tuple(classes), tuple(matched), len(there))


class _Joined(NamedTuple):
    """Boxes of all pictures, sorted by class, picture and descending score."""

    group: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    ignored: Bool[np.ndarray, " n"]


def _joined(pictures: Sequence[PictureBoxes], n_classes: int, most: int | None = None) -> _Joined:
    """Concatenate the boxes of all pictures, up to ``most`` per picture and class."""
    labels = np.concatenate([np.zeros(0, np.int64), *(p.labels for p in pictures)])
    group = labels * len(pictures) + np.repeat(np.arange(len(pictures)), [len(p.labels) for p in pictures])
    scores = np.concatenate([np.zeros(0), *(p.scores for p in pictures)])
    order = np.lexsort((-scores, group))
    order = order[(labels[order] >= 0) & (labels[order] < n_classes)]
    order = order if most is None else order[_turns(group[order]) < most]
    boxes = np.concatenate([np.zeros((0, 4)), *(p.boxes for p in pictures)])
    ignored = np.concatenate([np.zeros(0, bool), *(p.ignored for p in pictures)])
    return _Joined(group[order], boxes[order], scores[order], ignored[order])


def _turns(group: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return the position of each element in its group, counted from 0."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _match(own: _Joined, given: _Joined) -> tuple[Bool[np.ndarray, "t d"], Bool[np.ndarray, "t d"]]:
    """Return two masks per overlap: detections that match a true box, and detections that are not ignored."""
    right, spared = (np.zeros((len(OVERLAPS), len(own.group)), bool) for _ in range(2))
    free = np.ones((len(OVERLAPS), len(given.group)), bool)
    first, last = (np.searchsorted(given.group, own.group, side) for side in ("left", "right"))
    n = last - first
    d = np.repeat(np.arange(len(n)), n)
    g = np.arange(len(d)) + np.repeat(first - n.cumsum() + n, n)
    overlaps = overlap_of(own.boxes[d], given.boxes[g], given.ignored[g])
    # Of equal overlaps the last one is taken, as in pycocotools.
    order = np.lexsort((g, overlaps, d))
    order = order[overlaps[order] >= OVERLAPS[0]]
    d, g = d[order], g[order]
    enough = overlaps[order] >= np.minimum(OVERLAPS, 1 - 1e-10)[:, None]
    t, p = np.nonzero(enough & given.ignored[g])
    spared[t, d[p]] = True
    real = ~given.ignored[g]
    d, g, enough = d[real], g[real], enough[:, real]
    head = np.diff(d, prepend=-1) > 0
    turn = _turns(own.group[d[head]])[head.cumsum() - 1]
    order = np.argsort(turn, kind="stable")
    # In each round, one detection per picture and class is matched.
    for part in np.split(order, np.flatnonzero(np.diff(turn[order])) + 1) if len(order) else ():
        choice = np.where(enough[:, part] & free[:, g[part]], np.arange(len(part)), -1)
        best = np.maximum.reduceat(choice, np.flatnonzero(np.diff(d[part], prepend=-1)), axis=1)
        t, s = np.nonzero(best >= 0)
        chosen = part[best[t, s]]
        right[t, d[chosen]], free[t, g[chosen]] = True, False
    return right, right | ~spared


def overlap_of(
    found: Float[np.ndarray, "... 4"],
    there: Float[np.ndarray, "... 4"],
    ignored: Bool[np.ndarray, ...] | bool = False,
) -> Float[np.ndarray, ...]:
    """Return intersection over union or, for an ignored true box, intersection over the detected box's area."""
    shared = (np.minimum(found[..., 2:], there[..., 2:]) - np.maximum(found[..., :2], there[..., :2])).clip(0).prod(-1)
    own = (found[..., 2:] - found[..., :2]).prod(-1)
    whole = np.where(ignored, own, own + (there[..., 2:] - there[..., :2]).prod(-1) - shared)
    return shared / np.maximum(whole, 1e-12)


def confusion(
    there: Sequence[PictureBoxes], found: Sequence[PictureBoxes], n_classes: int, least: float, overlap: float = 0.5
) -> Int[np.ndarray, "rows columns"]:
    """Return the confusion matrix, true classes in rows, detected in columns; the last of each mean no box."""
    table = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    for given, all_ in zip(there, found, strict=True):
        sure = all_.scores >= least
        labels, boxes = all_.labels[sure], all_.boxes[sure]
        overlaps = overlap_of(boxes[:, None], given.boxes)
        free_found, free_there = np.ones(len(boxes), bool), ~given.ignored
        for place in np.argsort(-overlaps, axis=None, kind="stable"):
            d, g = np.unravel_index(place, overlaps.shape)
            if overlaps[d, g] < overlap:
                break
            if free_found[d] and free_there[g]:
                table[given.labels[g], labels[d]] += 1
                free_found[d] = free_there[g] = False
        on_ignored = (overlap_of(boxes[:, None], given.boxes[given.ignored]) >= overlap).any(1)
        np.add.at(table[n_classes], labels[free_found & ~on_ignored], 1)
        np.add.at(table[:, n_classes], given.labels[free_there], 1)
    return table
