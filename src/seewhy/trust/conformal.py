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
        min_per_class: held-out pictures a class needs for a line of its own.

    Example:
        >>> lines = ConformalLines(torch.linspace(0.05, 0.95, 19), torch.zeros(19, dtype=torch.long), 3)
        >>> lines.sets(torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([0]), 0.8).tolist()
        [[True, True, False]]
    """

    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    n_classes: int
    min_per_class: int = MIN_PER_CLASS

    def lines(self, level: float) -> Float[Tensor, " k"]:
        """The score up to which a class is in the set; 1 where there are too few pictures to promise anything.

        Classes with enough pictures keep the promise each for itself; the others share one line, drawn from all of
        theirs together or, where even these are too few, from those of all classes.
        """
        own = torch.bincount(self.labels, minlength=self.n_classes) >= self.min_per_class
        rest = self.scores[~own[self.labels]]
        shared = rest if len(rest) >= self.min_per_class else self.scores
        lines = torch.full((self.n_classes,), quantile(shared, level))
        for k in own.nonzero()[:, 0].tolist():
            lines[k] = quantile(self.scores[self.labels == k], level)
        return lines

    def sets(
        self, probabilities: Float[Tensor, "b k"], decided: Int[Tensor, " b"], level: float
    ) -> Bool[Tensor, "b k"]:
        """Which classes are in the set; the one decided for always is."""
        inside = 1 - probabilities <= self.lines(level) + 1e-6
        return inside.scatter(1, decided[:, None], True)


def quantile(scores: Float[Tensor, " n"], level: float) -> float:
    """The ⌈(n + 1) level⌉-th smallest score, which a new one of the same kind does not exceed with that probability.

    Returns:
        1, which every class is within, where there are fewer scores than that.
    """
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return 1.0 if rank > len(scores) else float(scores.sort().values[rank - 1])
