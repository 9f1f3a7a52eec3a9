"""Sparsity (Chalasani et al. 2020, arXiv 1810.06583)."""

from dataclasses import dataclass

import torch

from . import metrics
from .base import AveragedMetric, Case, Maps, Score, scores


@metrics.register
@dataclass(frozen=True)
class Sparsity(AveragedMetric):
    """Gini index of the map's absolute values: 0 for a uniform map, near 1 for a single pixel; high is compact.

    ``Σ_i (2i - m - 1) a_(i) / (m Σ a)``, ``a`` ascending. A map of zeros counts as uniform.
    """

    name = "sparsity"
    paper = "Chalasani et al. 2020, arXiv:1810.06583"
    family = "complexity"
    needs = "a map"
    cost = "0"
    higher_is_better = True
    reads = "map"
    sign = "absolute"

    def score(self, case: Case, maps: Maps) -> list[Score]:
        values = maps.abs().flatten(1).double().sort(dim=1).values
        n = values.shape[1]
        weights = 2 * torch.arange(1, n + 1) - n - 1
        return scores((weights * values).sum(1) / (n * values.sum(1)).clamp(min=1e-12))
