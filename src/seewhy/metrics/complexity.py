"""How compact a map is: complexity and sparsity."""

from dataclasses import dataclass

import torch

from . import metrics
from .base import AveragedMetric, Case, Maps, Score, scores


class Compactness(AveragedMetric):
    """A number of the map's absolute values alone."""

    family = "complexity"
    needs = "a map"
    cost = "0"
    reads = "map"
    sign = "absolute"


@metrics.register
@dataclass(frozen=True)
class Complexity(Compactness):
    """Entropy, in nats, of where the map's absolute values lie: log m for a uniform map, 0 for a single pixel.

    ``-Σ_i q_i log q_i`` with ``q = |R| / Σ|R|`` over ``m`` pixels; low is compact. A map of zeros counts as uniform.
    """

    name = "complexity"
    paper = "Bhatt et al. 2020, arXiv:2005.00631"
    higher_is_better = False
    bounds = (0.0, float("inf"))

    def score(self, case: Case, maps: Maps) -> list[Score]:
        values = maps.abs().flatten(1).double()
        total = values.sum(1, keepdim=True)
        q = torch.where(total > 0, values / total.clamp(min=1e-300), 1 / values.shape[1])
        return scores(-torch.xlogy(q, q).sum(1))


@metrics.register
@dataclass(frozen=True)
class Sparsity(Compactness):
    """Gini index of the map's absolute values: 0 for a uniform map, near 1 for a single pixel; high is compact.

    ``Σ_i (2i - m - 1) a_(i) / (m Σ a)``, ``a`` ascending. A map of zeros counts as uniform.
    """

    name = "sparsity"
    paper = "Chalasani et al. 2020, arXiv:1810.06583"
    higher_is_better = True

    def score(self, case: Case, maps: Maps) -> list[Score]:
        values = maps.abs().flatten(1).double().sort(dim=1).values
        n = values.shape[1]
        weights = 2 * torch.arange(1, n + 1) - n - 1
        return scores((weights * values).sum(1) / (n * values.sum(1)).clamp(min=1e-12))
