"""Complexity (Bhatt et al. 2020, arXiv 2005.00631)."""

from dataclasses import dataclass

import torch

from . import metrics
from .base import AveragedMetric, Case, Maps, Score, scores


@metrics.register
@dataclass(frozen=True)
class Complexity(AveragedMetric):
    """Entropy, in nats, of where the map's absolute values lie: log m for a uniform map, 0 for a single pixel.

    ``-Σ_i q_i log q_i`` with ``q = |R| / Σ|R|`` over ``m`` pixels; low is compact. A map of zeros counts as uniform.
    """

    name = "complexity"
    paper = "Bhatt et al. 2020, arXiv:2005.00631"
    family = "complexity"
    needs = "a map"
    cost = "0"
    higher_is_better = False
    bounds = (0.0, float("inf"))
    reads = "map"
    sign = "absolute"

    def score(self, case: Case, maps: Maps) -> list[Score]:
        values = maps.abs().flatten(1).double()
        total = values.sum(1, keepdim=True)
        q = torch.where(total > 0, values / total.clamp(min=1e-300), 1 / values.shape[1])
        return scores(-torch.xlogy(q, q).sum(1))
