"""Sensitivity-n (Ancona et al. 2018, arXiv 1711.06104)."""

from dataclasses import dataclass

import torch

from ..bounds import Count
from . import metrics
from .base import AveragedMetric, Case, Maps, Of, Score, scores
from .fills import Fill, filled
from .random_sets import losses, random_sets
from .similarity import pearson


@metrics.register
@dataclass(frozen=True)
class SensitivityN(AveragedMetric):
    """Correlation of the evidence in random pixel sets with what the output loses without them; high is good.

    For each size ``n``: Pearson correlation over random sets ``S``, ``|S| = n``, of ``Σ_{i in S} R_i`` with
    ``y(x) - y(x without S)``; the value is the mean over sizes, ``parts`` has the curve. Made for maps in units of
    the output, of which it is 1 on a linear model; of others only the correlation's sign and size can be read.

    Args:
        fractions: set sizes as parts of the pixels; the paper goes from 1 to 80 %.
        n_sets: sets a size.
        fill: what takes their place.
        of: output read; the paper's is the logit.
        batch_size: pictures a forward pass sees.
        seed: of the sets.
    """

    name = "sensitivity_n"
    paper = "Ancona et al. 2018, arXiv:1711.06104"
    needs = "a map and the model's logits"
    cost = "one per set, shared by all maps"
    higher_is_better = True
    bounds = (-1.0, 1.0)
    sign = "as it is"
    small = {"n_sets": 8}

    fractions: tuple[float, ...] = (0.01, 0.05, 0.2, 0.4, 0.6, 0.8)
    n_sets: Count = 50
    fill: Fill = "mean"
    of: Of = "logit"
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        size = (case.pixels.shape[1], case.pixels.shape[2])
        blank = filled(case.pixels, self.fill, case.transform)
        curves = []
        for i, fraction in enumerate(self.fractions):
            n = max(1, round(fraction * size[0] * size[1]))
            sets = random_sets(self.n_sets, n, size, self.seed * len(self.fractions) + i)
            claims, lost = losses(case, maps, sets, self.n_sets, blank, of=self.of, batch_size=self.batch_size)
            curves.append(pearson(claims, lost.expand_as(claims)))
        table = torch.stack(curves, 1)
        return scores(table.mean(1), curve=table)
