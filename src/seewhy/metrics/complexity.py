"""Complexity (Bhatt et al. 2020, arXiv 2005.00631)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import AveragedMetric, Case, Score, scores


@metrics.register
@dataclass(frozen=True)
class Complexity(AveragedMetric):
    """Entropy, in nats, of where the map's absolute values lie: log m for a uniform map, 0 for a single pixel.

    ``-Σ_i q_i log q_i`` with ``q = |R| / Σ|R|`` over ``m`` pixels; low is compact. A map of zeros counts as uniform.
    """

    name: ClassVar[str] = "complexity"
    paper: ClassVar[str] = "Bhatt et al. 2020, arXiv:2005.00631"
    family: ClassVar[str] = "complexity"
    needs: ClassVar[str] = "a map"
    cost: ClassVar[str] = "0"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    reads: ClassVar[str] = "map"
    sign: ClassVar[str] = "absolute"

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        return scores(entropy(maps))


def entropy(maps: Float[Tensor, "m h w"]) -> Float[Tensor, " m"]:
    """Entropy of the absolute values as a distribution over pixels."""
    values = maps.abs().flatten(1).double()
    total = values.sum(1, keepdim=True)
    q = torch.where(total > 0, values / total.clamp(min=1e-300), 1 / values.shape[1])
    return -torch.xlogy(q, q).sum(1)
