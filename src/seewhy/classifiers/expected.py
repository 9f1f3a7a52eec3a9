"""What to expect of new pictures: a range, from the hardest split that the pictures allow to the held-out figure.

Pictures of one day tell nothing of the next. What they can tell is how far the figure falls where they differ most: the
pictures of each class are parted in two by looks, and each half is decided by a fit on the other halves. Over pairs of
lists, one to fit on and a later one, the range held the later figure in 93 % (benchmarks/strangers.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..trust.measure import trust_features
from .linear.solvers import fit_logistic

C = 100.0
"""Of a picture, where none was chosen on held-out pictures."""
DOWN, UP = 1.0, 0.7
"""Log odds by which the range goes at most below the interval of the held-out figure, and by which it goes above it."""
MOST = 3000
"""Pictures that are parted, at most."""
N_STARTS, N_ROUNDS = 4, 15


def linear_fit(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int, c: float | None = None
) -> Callable[[Float[Tensor, "b d"]], Float[Tensor, "b k"]]:
    """A linear classifier of features, as ``linear`` fits one without crops: features → logits."""
    return fit_logistic(features, labels, n_classes, c or C, tol=1e-4).logits


def accuracy_between_halves(
    pooled: Float[Tensor, "n p"], labels: Int[Tensor, " n"], n_classes: int, c: float | None = None
) -> float | None:
    """Accuracy where each half of every class is decided by a fit on the other halves; ``None`` without two classes."""
    if len(labels) > MOST:
        some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:MOST]
        pooled, labels = pooled[some], labels[some]
    features, half = trust_features(pooled.float()), torch.zeros(len(labels), dtype=torch.long)
    for k in labels.unique().tolist():
        mine = (labels == k).nonzero()[:, 0]
        half[mine] = halves(features[mine])
    right = []
    for part in (0, 1):
        asked = half == part
        if not bool(asked.any()) or len(labels[~asked].unique()) < 2:
            return None
        logits = linear_fit(features[~asked], labels[~asked], n_classes, c)(features[asked])
        right.append(logits.argmax(1) == labels[asked])
    return float(torch.cat(right).double().mean())


def halves(features: Float[Tensor, "n d"], seed: int = 0) -> Int[Tensor, " n"]:
    """0 or 1 for each picture: two spherical means of what differs between them, the best of a few starts."""
    n = len(features)
    if n < 4:
        return torch.arange(n) % 2
    x = normalize(features - features.mean(0), dim=1)
    draw, best, found = torch.Generator().manual_seed(seed), -math.inf, torch.arange(n) % 2
    for _ in range(N_STARTS):
        centres = x[torch.randperm(n, generator=draw)[:2]]
        for _ in range(N_ROUNDS):
            nearest = (x @ centres.T).argmax(1)
            sums = torch.zeros_like(centres).index_add(0, nearest, x)
            centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, normalize(sums, dim=1), centres)
        fit = float((x @ centres.T).max(1).values.sum())
        if fit > best and len(nearest.unique()) == 2:
            best, found = fit, nearest
    return found


def expected_range(interval: tuple[float, float], hardest: float) -> tuple[float, float]:
    """Where the figure of another day may lie.

    Args:
        interval: of the held-out figure.
        hardest: :func:`accuracy_between_halves`.

    Example:
        >>> [round(end, 2) for end in expected_range((0.84, 0.97), 0.65)]
        [0.66, 0.98]
    """
    low, high = interval
    return min(low, max(hardest, _moved(low, -DOWN))), _moved(high, UP)


def range_in_words(expected: Sequence[float]) -> str:
    """Whole per cents, rounded outwards.

    Example:
        >>> range_in_words((0.613, 0.9012))
        '61 to 91 %'
    """
    return f"{math.floor(expected[0] * 100)} to {math.ceil(expected[1] * 100)} %"


def log_odds_shift(measures: Mapping[str, Any]) -> tuple[float, float]:
    """By how much the log odds of being right may fall and rise, by the range that was measured; 0 without one."""
    expected, interval = measures.get("expected_range"), measures.get("held_out_interval")
    if expected is None or interval is None:
        return 0.0, 0.0
    return max(0.0, _log_odds(interval[0]) - _log_odds(expected[0])), UP


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))


def _moved(p: float, by: float) -> float:
    return 1 / (1 + math.exp(-(_log_odds(p) + by)))
