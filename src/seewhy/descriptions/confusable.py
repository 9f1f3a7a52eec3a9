"""Which classes a classifier holds for one another: the pairs that stand together at the top of its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations

from ..explanation.prediction import Prediction
from ..types import Failure


def confusable_pairs(predictions: Iterable[Prediction | Failure], most: int) -> list[tuple[str, str]]:
    """Pairs of classes by how often, and how strongly, both are among a picture's first.

    A pair counts, on each picture, the probability of the less likely of the two: 0.5 where the classifier cannot tell
    them apart at all.
    """
    weight: Counter[tuple[str, str]] = Counter()
    for one in predictions:
        if isinstance(one, Failure):
            continue
        for a, b in combinations(one.top, 2):
            first, second = sorted((a.label, b.label))
            weight[first, second] += min(a.score, b.score)  # type: ignore[assignment]
    return [pair for pair, _ in sorted(weight.items(), key=lambda item: (-item[1], item[0]))[:most]]
