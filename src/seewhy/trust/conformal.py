"""Conformal sets: as many classes as it takes to hold the true one as often as promised (split conformal prediction).

Vovk, Gammerman & Shafer (2005), *Algorithmic Learning in a Random World*; by class (Mondrian): section 4.5 there. The
score is one less the probability of a class (LAC: Sadinle, Lei & Wasserman 2019, arXiv:1609.00451), whose sets are the
smallest on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_PER_CLASS = 50
"""Pictures a class needs for a line of its own: with fewer, that line is a draw of which pictures were held out (its
coverage has a standard deviation of 4 points with 50, of 7 with 20)."""


@dataclass(frozen=True)
class ConformalLines:
    """Scores of held-out pictures, from which a set follows at any level.

    Attributes:
        scores: one less the probability of each one's own class, 0 where that was decided for, 0…1.
        labels: index of each one's class.
        n_classes: how many there are.
        doubtful: which of them are decided with less than the level's probability of being right; left out, none.
        min_per_class: held-out pictures a class needs for a line of its own.

    Example:
        >>> lines = ConformalLines(torch.linspace(0.05, 0.95, 19), torch.zeros(19, dtype=torch.long), 3)
        >>> lines.sets(torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([0]), 0.8).tolist()
        [[True, True, False]]
    """

    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    n_classes: int
    doubtful: Bool[Tensor, " n"] | None = None
    min_per_class: int = MIN_PER_CLASS

    def lines(self, level: float) -> Float[Tensor, "2 k"]:
        """The score up to which a class is in the set; 1 where there are too few pictures to promise anything.

        One row for decisions that are not doubtful, one for those that are: sets that keep the promise on the whole
        only, because sure decisions are right more often than promised, would break it where it is needed. In each,
        classes with enough pictures keep the promise for themselves; the others share one line, drawn from all of
        theirs together or, where even these are too few, from all pictures.
        """
        if self.doubtful is None:
            return self._by_class(self.scores, self.labels, level).expand(2, -1)
        rows = []
        for part in (~self.doubtful, self.doubtful):
            part = part if int(part.sum()) >= self.min_per_class else torch.ones_like(part)
            rows.append(self._by_class(self.scores[part], self.labels[part], level))
        return torch.stack(rows)

    def _by_class(self, scores: Float[Tensor, " m"], labels: Int[Tensor, " m"], level: float) -> Float[Tensor, " k"]:
        own = torch.bincount(labels, minlength=self.n_classes) >= self.min_per_class
        rest = scores[~own[labels]]
        shared = rest if len(rest) >= self.min_per_class else scores
        lines = torch.full((self.n_classes,), quantile(shared, level))
        for k in own.nonzero()[:, 0].tolist():
            lines[k] = quantile(scores[labels == k], level)
        return lines

    def sets(
        self,
        probabilities: Float[Tensor, "b k"],
        decided: Int[Tensor, " b"],
        level: float,
        doubtful: Bool[Tensor, " b"] | None = None,
    ) -> Bool[Tensor, "b k"]:
        """Which classes are in the set; the one decided for always is."""
        row = torch.zeros(len(decided), dtype=torch.long) if doubtful is None else doubtful.long()
        inside = 1 - probabilities <= self.lines(level)[row] + 1e-6
        return inside.scatter(1, decided[:, None], True)


def quantile(scores: Float[Tensor, " n"], level: float) -> float:
    """The ⌈(n + 1) level⌉-th smallest score, which a new one of the same kind does not exceed with that probability."""
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return 1.0 if rank > len(scores) else float(scores.sort().values[rank - 1])
