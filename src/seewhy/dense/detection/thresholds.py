"""From which score a box counts, class by class, calibrated on pictures that were not learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...metrics.average_precision import Matched, average_precision, boxes_of
from ...pictures.boxes import BoxedPicture

FEWEST = 5
"""Boxes of a class that must be held out; with fewer the threshold of all classes together is taken."""


class Point(NamedTuple):
    """A threshold, and what it reaches where it was found."""

    least: float
    precision: float
    recall: float


def calibrated(
    there: Sequence[BoxedPicture],
    found: Sequence[BoxedPicture],
    classes: Sequence[str],
    precision: float | None = None,
) -> list[dict[str, Any]]:
    """The threshold of each class, with what it reaches on these pictures.

    A box is right where it overlaps by half with one of its class, as for AP50.

    Args:
        there: pictures held out, with what is in them.
        found: what was found in them, whatever its score.
        classes: of the detector.
        precision: that boxes of a class are to have at least; left out, the harmonic mean of precision and recall is
            to be largest.

    Returns:
        Per class ``label``, its ``n`` boxes held out, ``threshold``, ``own`` (whether it is from this class alone),
        ``precision`` and ``recall`` of it there.
    """
    given, boxes = ([boxes_of(p, classes) for p in side] for side in (there, found))
    matched = average_precision(given, boxes, classes).matched
    together = best_point(matched, precision) or Point(0.5, 0.0, 0.0)
    rows = []
    for label, own in zip(classes, matched, strict=True):
        n = int(own.n_there.sum())
        point = best_point([own], precision) if n >= FEWEST else None
        chosen = point or together
        reached = {"precision": round(chosen.precision, 4), "recall": round(chosen.recall, 4)}
        rows.append({"label": label, "n": n, "threshold": chosen.least, "own": point is not None, **reached})
    return rows


def best_point(matched: Sequence[Matched], precision: float | None) -> Point | None:
    """The threshold to take; ``None`` where nothing right was found.

    Args:
        matched: of one class, or of several together.
        precision: at which the most is to be found; where none has it, the most precise is taken. Left out, F1 counts.

    Example:
        >>> one = Matched(np.zeros(3, int), np.array([.9, .6, .2]), np.array([[True, True, False]]),
        ...               np.ones((1, 3), bool), np.array([2]))
        >>> best_point([one], None)
        Point(least=0.4, precision=1.0, recall=1.0)
    """
    scores = np.concatenate([m.score for m in matched])
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    right, counts = (np.concatenate([getattr(m, what)[0] for m in matched])[order] for what in ("right", "counts"))
    n_there = sum(int(m.n_there.sum()) for m in matched)
    if not right.any() or not n_there:
        return None
    hits, all_ = right.cumsum(), np.maximum((right | counts).cumsum(), 1)
    precise, recall = hits / all_, hits / n_there
    # Boxes of equal scores are kept or left together.
    last = np.append(scores[1:] < scores[:-1], True)
    value = 2 * hits / (all_ + n_there)
    if precision is not None:
        enough = precise >= precision
        value = np.where(enough, recall, -1.0) if (enough & last).any() else precise + 1e-9 * recall
    place = int(np.where(last, value, -np.inf).argmax())
    below = scores[place + 1] if place + 1 < len(scores) else 0.0
    return Point(round(float(scores[place] + below) / 2, 6), float(precise[place]), float(recall[place]))
