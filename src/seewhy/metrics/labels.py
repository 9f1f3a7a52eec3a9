"""Measures of yes/no labels: average precision, thresholds chosen for an aim, and sets that rarely miss a label."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError

Goal = Literal["f1", "precision", "recall"]


@dataclass(frozen=True)
class Aim:
    """What a threshold is chosen for: the best F1, or the most labels with a least precision or recall."""

    kind: Goal = "f1"
    least: float | None = None

    @classmethod
    def parse(cls, text: str) -> Aim:
        """Read ``f1``, ``precision=0.9`` or ``recall=0.9``.

        >>> Aim.parse("recall=0.9"), str(Aim.parse("f1"))
        (Aim(kind='recall', least=0.9), 'f1')
        """
        name, _, number = text.replace(" ", "").partition("=")
        for kind in get_args(Goal):
            if name == kind and kind == "f1" and not number:
                return cls()
            try:
                if name == kind and kind != "f1" and 0 < float(number) < 1:
                    return cls(kind, float(number))
            except ValueError:
                break
        raise InputError(
            f"The aim of the thresholds must be f1, precision=NUMBER or recall=NUMBER with a number between 0 and 1, "
            f"got {text!r}. For example: precision=0.9"
        )

    def __str__(self) -> str:
        return self.kind if self.least is None else f"{self.kind}={self.least:g}"


def _steps(
    scores: Float[Tensor, " n"], true: Bool[Tensor, " n"], weights: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Return the distinct scores, highest first, and the weights of right and of all pictures from each score on."""
    values, place = scores.double().unique(return_inverse=True)
    hits, named = (
        torch.zeros(len(values), dtype=torch.double).index_add_(0, place, w).flip(0).cumsum(0)
        for w in (weights.double() * true, weights.double())
    )
    return values.flip(0), hits, named


def average_precision(
    scores: Float[Tensor, " n"], true: Bool[Tensor, " n"], weights: Float[Tensor, " n"] | None = None
) -> float:
    """Return the sum of precisions at the distinct scores, each times the gain in recall; NaN without a true label.

    Equal scores count together, as in scikit-learn.
    """
    _, hits, named = _steps(scores, true, torch.ones(len(true)) if weights is None else weights)
    if not len(hits) or not hits[-1]:
        return math.nan
    gain = hits.diff(prepend=torch.zeros(1, dtype=hits.dtype)) / hits[-1]
    return float((gain * hits / named.clamp(min=1e-12)).sum())


def interval_of(
    statistic: Callable[[Float[Tensor, " n"]], float], groups: Int[Tensor, " n"], n_draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a statistic of the pictures' weights; groups are drawn as a whole.

    Draws for which the statistic is NaN are left out; if these are more than half, the interval is NaN.
    """
    number = groups.unique(return_inverse=True)[1]
    n, draw = int(number.max()) + 1, torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n_draws):
        counts = torch.bincount(torch.randint(n, (n,), generator=draw), minlength=n)
        found.append(statistic(counts[number].double()))
    known = torch.tensor([x for x in found if not math.isnan(x)], dtype=torch.double)
    if 2 * len(known) < n_draws:
        return math.nan, math.nan
    low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return low, high


def threshold_for(aim: Aim, probability: Float[Tensor, " n"], true: Bool[Tensor, " n"]) -> float:
    """Return the probability from which a label is given.

    - F1: the threshold with the best F1, between two neighbouring probabilities; of equal ones, the highest.
    - precision: the threshold with the best recall, of those for which the precision would still be reached if one more
      label, a wrong one, were given; infinity if there is none, so that the label is never given.
    - recall: see :func:`possible_from`.
    """
    if aim.kind == "recall":
        return possible_from(probability, true, aim.least or 0.0)
    values, hits, named = _steps(probability, true, torch.ones(len(true)))
    if not len(values):
        return math.inf
    below = torch.cat([values[1:], torch.zeros(1, dtype=values.dtype)])
    if aim.kind == "f1":
        best = int((2 * hits / (named + hits[-1]).clamp(min=1)).argmax())
    else:
        reached = (hits / (named + 1) >= (aim.least or 0.0)).nonzero()[:, 0]
        if not len(reached):
            return math.inf
        best = int(reached[hits[reached].argmax()])
    return float(values[best] + below[best]) / 2


def possible_from(probability: Float[Tensor, " n"], true: Bool[Tensor, " n"], level: float) -> float:
    """Return the probability from which a label is possible, by conformal risk control.

    A new picture with the label has a lower probability in at most ``1 - level`` of cases, if it is exchangeable with
    the measured ones (Angelopoulos et al. 2022, arXiv:2208.02814). With the loss 1 for a missed label, this is split
    conformal prediction for each class. With too few pictures, the label is always possible.
    """
    own = probability[true].sort().values
    rank = math.floor((len(own) + 1) * (1 - level) + 1e-9)
    return float(own[min(rank, len(own)) - 1]) if rank else 0.0


def given_apart(
    aim: Aim, probability: Float[Tensor, " n"], true: Bool[Tensor, " n"], folds: Int[Tensor, " n"]
) -> Bool[Tensor, " n"]:
    """Return to which pictures a label is given by thresholds that were chosen on the other folds."""
    given = torch.zeros_like(true)
    for fold in folds.unique().tolist():
        mine = folds == fold
        given[mine] = probability[mine] >= threshold_for(aim, probability[~mine], true[~mine])
    return given


class Agreement(NamedTuple):
    """How given labels agree with true ones; NaN where undefined."""

    precision: float
    recall: float
    f1: float


def agreement(given: Bool[Tensor, " n"], true: Bool[Tensor, " n"]) -> Agreement:
    hits, n_given, n_true = int((given & true).sum()), int(given.sum()), int(true.sum())
    precision, recall = (hits / n if n else math.nan for n in (n_given, n_true))
    return Agreement(precision, recall, 2 * hits / (n_given + n_true) if n_given + n_true else math.nan)
