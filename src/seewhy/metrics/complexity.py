"""How compact a map is: complexity and sparsity."""

from dataclasses import dataclass

import torch

from . import metrics
from .base import AveragedMetric, Case, Maps, Score, scores


class Compactness(AveragedMetric):
    """A metric that depends on the map's absolute values alone."""

    family = "complexity"
    needs = "a map"
    cost = "0"
    reads = "map"
    sign = "absolute"


@metrics.register
@dataclass(frozen=True)
class Complexity(Compactness):
    """How spread out the map is: entropy, in nats, of its absolute values; low is compact.

    ``-Σ_i q_i log q_i`` with ``q = |R| / Σ|R|`` over ``m`` pixels: log m if uniform or all zeros, 0 for a single pixel.
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
    """How compact the map is: Gini index of its absolute values; high is compact.

    ``Σ_i (2i - m - 1) a_(i) / (m Σ a)`` with ``a`` ascending: 0 if uniform or all zeros, near 1 for a single pixel.
    """

    name = "sparsity"
    paper = "Chalasani et al. 2020, arXiv:1810.06583"
    higher_is_better = True

    def score(self, case: Case, maps: Maps) -> list[Score]:
        values = maps.abs().flatten(1).double().sort(dim=1).values
        n = values.shape[1]
        weights = 2 * torch.arange(1, n + 1) - n - 1
        return scores((weights * values).sum(1) / (n * values.sum(1)).clamp(min=1e-12))
