"""Measures and thresholds of yes/no labels, of which a picture can have several (multi-label classification)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError

Scores = Float[Tensor, " n"]
Labels = Bool[Tensor, " n"]
"""Which pictures have one label."""
AIMS = """The aim of the thresholds must be f1, precision=NUMBER or recall=NUMBER with a number between 0 and 1, got \
{!r}. For example: precision=0.9"""


@dataclass(frozen=True)
class Aim:
    """What a threshold is chosen for: the best F1, or the most labels at a least precision, or a least recall."""

    kind: Literal["f1", "precision", "recall"] = "f1"
    least: float | None = None

    def __post_init__(self) -> None:
        fits = self.least is None if self.kind == "f1" else self.least is not None and 0 < self.least < 1
        if not fits or self.kind not in ("f1", "precision", "recall"):
            raise InputError(AIMS.format(str(self)))

    @classmethod
    def parse(cls, text: str) -> Aim:
        """Read ``f1``, ``precision=0.9`` or ``recall=0.9``."""
        kind, equals, least = text.replace(" ", "").partition("=")
        try:
            return cls(kind, float(least) if equals else None)  # type: ignore[arg-type]
        except ValueError:
            raise InputError(AIMS.format(text)) from None

    def __str__(self) -> str:
        return self.kind if self.least is None else f"{self.kind}={self.least}"


class Agreement(NamedTuple):
    """How well given labels agree with the true ones; NaN where a measure is undefined."""

    precision: float
    recall: float
    f1: float
    n_given: int
    n_true: int
    n_right: int


def agreement(given: Labels, true: Labels) -> Agreement:
    """Return precision, recall and F1 of a label."""
    n_given, n_true, n_right = int(given.sum()), int(true.sum()), int((given & true).sum())
    precision, recall = (n_right / n if n else math.nan for n in (n_given, n_true))
    f1 = 2 * n_right / (n_given + n_true) if n_given + n_true else math.nan
    return Agreement(precision, recall, f1, n_given, n_true, n_right)


def average_precision(scores: Scores, true: Labels, weights: Scores | None = None) -> float:
    """Return the average precision of a ranking, as scikit-learn's ``average_precision_score``; NaN if none is true.

        AP = Σ (Rₜ − Rₜ₋₁) Pₜ

    - ``Pₜ``, ``Rₜ``: precision and recall of the pictures that score at least the ``t``-th highest distinct score.
    """
    _, hits, given = _from_the_top(scores, true, weights)
    gained = hits.diff(prepend=hits.new_zeros(1)) * hits / given.clamp(min=1e-300)
    return float(gained.sum() / hits[-1]) if len(hits) else math.nan


def _from_the_top(scores: Scores, true: Labels, weights: Scores | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct scores in descending order, and the weight of true and of all pictures from each score up."""
    distinct, place = scores.unique(return_inverse=True)
    weight = torch.ones(len(scores), dtype=torch.double) if weights is None else weights.double()
    sums = torch.zeros(2, len(distinct), dtype=torch.double).index_add_(1, place, torch.stack([weight * true, weight]))
    hits, given = sums.flip(1).cumsum(1)
    return distinct.flip(0), hits, given


def interval_of(
    statistic: Callable[[Scores], float], groups: Int[Tensor, " n"], n_draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a statistic of weighted pictures, with whole groups drawn.

    Draws in which the statistic is NaN are left out. Both ends are NaN if these are more than half, or if there are
    fewer than two groups. A statistic of 0 or 1 in each draw has an interval without width.
    """
    names, number = groups.unique(return_inverse=True)
    n, draws = len(names), torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (n_draws, n), generator=draws) if n > 1 else torch.empty(0)
    values = torch.tensor([statistic(row.bincount(minlength=n).double()[number]) for row in drawn], dtype=torch.double)
    values = values[~values.isnan()]
    if 2 * len(values) < n_draws:
        return math.nan, math.nan
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return low, high


def threshold_for(aim: Aim, probability: Scores, true: Labels) -> float:
    """Return the threshold from which a label is given; infinity if it is never given.

    It is midway between two neighbouring probabilities; of equally good thresholds, the highest.

    - f1: the highest F1.
    - precision: the most right labels, of those with right / (given + 1) ≥ least, as if one more were given and wrong.
      In simulations, this holds on average, if a label that is never given counts as precise.
    - recall: :func:`possible_from`, which guarantees it on average; 0 if there are too few true pictures.
    """
    if aim.kind == "recall" and aim.least:
        return possible_from(probability, true, aim.least)
    scores, right, given = _from_the_top(probability, true)
    good = right * (right / (given + 1) >= aim.least) if aim.least else right / (given + true.sum())
    if not bool(good.any()):
        return math.inf
    best = int(good.argmax())
    high, low = torch.cat([scores, scores.new_zeros(1)])[best : best + 2]
    middle = (high + low) / 2
    return float(middle if middle > low else high)  # there may be no number between them


def possible_from(probability: Scores, true: Labels, level: float) -> float:
    """Return the probability from which a label is possible: at most 1 − ``level`` of its true pictures are below it.

    Conformal risk control (Angelopoulos, Bates, Fisch, Lei & Schuster 2022, arXiv:2208.02814) of the loss "a true
    label is not among the possible ones": the ⌊(n + 1)(1 − level)⌋-th smallest probability of the ``n`` true pictures,
    or 0. It holds on average for new true pictures that are exchangeable with these (not if they share groups). With
    this loss of 0 or 1, it is the same as split conformal prediction for each class.
    """
    own = probability[true].sort().values
    rank = min(len(own), math.floor((len(own) + 1) * (1 - level) + 1e-9))
    return float(own[rank - 1]) if rank else 0.0


def given_apart(aim: Aim, probability: Scores, true: Labels, folds: Int[Tensor, " n"]) -> Labels:
    """Return to which pictures a label is given by thresholds that were chosen on the other folds."""
    given = torch.zeros_like(true)
    for fold in folds.unique().tolist():
        mine = folds == fold
        given[mine] = probability[mine] >= threshold_for(aim, probability[~mine], true[~mine])
    return given
