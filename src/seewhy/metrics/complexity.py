"""Metrics of a map's compactness."""

from dataclasses import dataclass

import torch

from . import metrics
from .base import AveragedMetric, Case, Maps, Score, scores


class Compactness(AveragedMetric):
    """A metric of the map's absolute values; the model is not used."""

    family = "complexity"
    needs = "a map"
    cost = "0"
    reads = "map"
    sign = "absolute"


@metrics.register
@dataclass(frozen=True)
class Complexity(Compactness):
    """Entropy of the map's absolute values, in nats; low is compact.

    The value is

        -Σ_i q_i log q_i,    q_i = |R_i| / Σ_j |R_j|

    where ``R_i`` is the value of pixel ``i``. For ``m`` pixels, the range is 0 (one pixel has all evidence) to log
    ``m`` (uniform, or all zeros).
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
    """Gini index of the map's absolute values; high is compact.

    The value is

        Σ_i (2i - m - 1) a_i / (m Σ_i a_i)

    where ``a_1 ≤ … ≤ a_m`` are the absolute values of the ``m`` pixels. The range is 0 (uniform, or all zeros) to
    nearly 1 (one pixel has all evidence).
    """

    name = "sparsity"
    paper = "Chalasani et al. 2020, arXiv:1810.06583"
    higher_is_better = True

    def score(self, case: Case, maps: Maps) -> list[Score]:
        values = maps.abs().flatten(1).double().sort(dim=1).values
        n = values.shape[1]
        weights = 2 * torch.arange(1, n + 1) - n - 1
        return scores((weights * values).sum(1) / (n * values.sum(1)).clamp(min=1e-12))
