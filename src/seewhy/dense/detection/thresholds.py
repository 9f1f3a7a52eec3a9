"""From which score a box counts, class by class, and what that reaches on pictures that it was not chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ...metrics.average_precision import Matched, average_precision, boxes_of
from ...pictures.boxes import BoxedPicture

FEWEST = 10
"""Boxes of a class without which nothing is said of it; the threshold of all classes together is taken."""
SURE = 1.645
"""Standard errors below which the precision that is promised lies in 1 of 20 cases."""
NEW = 1.96 * 2**0.5
"""Standard errors within which the figure of as many new pictures lies in 19 of 20 cases: they vary as these do."""


class Point(NamedTuple):
    """A threshold, what it reaches where it was found, and whether that is as precise as was asked for."""

    least: float
    precision: float
    recall: float
    enough: bool = True


class Ranked(NamedTuple):
    """Boxes that count, surest first."""

    score: Float[np.ndarray, " d"]
    right: Bool[np.ndarray, " d"]
    picture: Int[np.ndarray, " d"]
    n_there: int

    @classmethod
    def of(cls, matched: Sequence[Matched]) -> Ranked:
        """Those of one class, or of several together, where half is overlap enough."""
        score, picture = (np.concatenate([getattr(m, what) for m in matched]) for what in ("score", "picture"))
        right, counts = (np.concatenate([getattr(m, what)[0] for m in matched]) for what in ("right", "counts"))
        use = right | counts
        order = np.flatnonzero(use)[np.argsort(-score[use], kind="stable")]
        return cls(score[order], right[order], picture[order], sum(int(m.n_there.sum()) for m in matched))

    def lower(self, z: float) -> Float[np.ndarray, " d"]:
        """Wilson's lower bound of the precision of the first 1, 2, … boxes, those of one picture being alike."""
        order = np.argsort(self.picture, kind="stable")
        right, n, hits = self.right.astype(float), np.empty(len(order)), np.empty(len(order))
        first = np.searchsorted(self.picture[order], self.picture[order])
        n[order] = np.arange(len(order)) - first
        before = np.append(0, right[order].cumsum())
        hits[order] = before[:-1] - before[first]
        # What one box more adds to the sums over pictures of squares and products of their counts.
        all_ = np.arange(1.0, len(order) + 1)
        p = right.cumsum() / all_
        square = ((2 * hits + 1) * right).cumsum() - 2 * p * (hits + right * (n + 1)).cumsum()
        variance = (square + p**2 * (2 * n + 1).cumsum()) / all_**2
        effect = np.maximum(1, variance / np.maximum(p * (1 - p) / all_, 1e-12))
        return wilson(p, all_ / effect, z)[0]


def wilson(p: Any, n: Any, z: float) -> tuple[Any, Any]:
    """Wilson's interval of a part.

    >>> [round(v, 3) for v in wilson(0.5, 10, 1.96)]
    [0.237, 0.763]
    """
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def calibrated(
    there: Sequence[BoxedPicture],
    found: Sequence[BoxedPicture],
    fold: Sequence[int],
    classes: Sequence[str],
    precision: float | None = None,
) -> list[dict[str, Any]]:
    """The threshold of each class, and what such thresholds reach on pictures that they were not chosen on."""
    given, boxes = ([boxes_of(p, classes) for p in side] for side in (there, found))
    matched = average_precision(given, boxes, classes).matched
    together = best_point(matched, precision) or Point(0.5, 0.0, 0.0)
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
    """Precision and recall of thresholds that were chosen on the other folds."""
    least = np.full(len(fold), np.inf)
    for one in np.unique(fold):
        point = best_point([_on(own, fold != one)], precision)
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
    """How many of all are right, over pictures, and of how many that are not alike that is as sure; 0 of none.

    >>> part(np.array([2, 0]), np.array([2, 2]))
    (0.5, 1.0)
    """
    total = int(all_.sum())
    if not total:
        return 0.0, 0.0
    p, n = float(hits.sum() / total), len(all_)
    variance = ((hits - p * all_) ** 2).sum() / total**2 * n / max(n - 1, 1)
    effect = max(1.0, variance / max(p * (1 - p) / total, 1e-12))
    return p, total / effect


def between(folds: Sequence[tuple[float, float]]) -> float:
    """The variance that a new fit brings: by which figures of folds differ more than their pictures make them.

    >>> round(between([(0.2, 100), (0.5, 100), (0.8, 100)]), 3)
    0.117
    """
    known = [(p, p * (1 - p) / n) for p, n in folds if n]
    if len(known) < 2:
        return 0.0
    values, own = np.array(known).T
    return max(0.0, float(values.var(ddof=1) - own.mean())) * (1 + 1 / len(known))


def _on(matched: Matched, which: Bool[np.ndarray, " p"]) -> Matched:
    """The same of some pictures alone."""
    own = which[matched.picture]
    return Matched(
        matched.picture[own], matched.score[own], matched.right[:, own], matched.counts[:, own],
        matched.n_there * which,
    )  # fmt: skip


def best_point(matched: Sequence[Matched], precision: float | None) -> Point | None:
    """The threshold to take; ``None`` where nothing right was found.

    >>> one = Matched(np.zeros(3, int), np.array([.9, .6, .2]), np.array([[True, True, False]]),
    ...               np.ones((1, 3), bool), np.array([2]))
    >>> best_point([one], None)
    Point(least=0.4, precision=1.0, recall=1.0, enough=True)
    """
    boxes = Ranked.of(matched)
    scores, n_there = boxes.score, boxes.n_there
    if not boxes.right.any() or not n_there:
        return None
    hits, all_ = boxes.right.cumsum(), np.arange(1, len(scores) + 1)
    recall = hits / n_there
    # Boxes of equal scores are kept or left together.
    last = np.append(scores[1:] < scores[:-1], True)
    value, enough = 2 * hits / (all_ + n_there), np.ones(len(scores), bool)
    if precision is not None:
        lower = boxes.lower(SURE)
        enough = lower >= precision
        value = np.where(enough, recall, -1.0) if (enough & last).any() else lower
    place = int(np.where(last, value, -np.inf).argmax())
    below = scores[place + 1] if place + 1 < len(scores) else 0.0
    least = round(float(scores[place] + below) / 2, 6)
    return Point(least, float(hits[place] / all_[place]), float(recall[place]), bool(enough[place]))
