"""How well a number tells right from wrong, or known from unknown: AUROC, and the risk–coverage curve with its area."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def auroc(higher: Float[Tensor, " n"], lower: Float[Tensor, " m"]) -> float | None:
    """How often one of ``higher`` is above one of ``lower``, ties counting half; 0.5 is luck. None without both.

    Example:
        >>> auroc(torch.tensor([0.9, 0.5]), torch.tensor([0.5, 0.1]))
        0.875
    """
    if not len(higher) or not len(lower):
        return None
    _, place, count = torch.cat([higher, lower]).unique(return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0).double() - (count - 1) / 2)[place]
    n, m = len(higher), len(lower)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


@dataclass(frozen=True)
class RiskCoverage:
    """What is wrong (``risk``) among the decisions kept, as more and more of them are kept (``coverage``), the least
    doubtful first (Geifman & El-Yaniv 2017, arXiv:1705.08500).

    ``area`` is the mean risk over all coverages (AURC, low is good), ``best`` the same if every right decision came
    before every wrong one, ``chance`` that of random order.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float
    best: float
    chance: float

    @classmethod
    def of(cls, doubt: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> RiskCoverage:
        """The curve; decisions of equal doubt count as in random order.

        Example:
            >>> RiskCoverage.of(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([True, True, False])).risk
            (0.0, 0.0, 0.3333333333333333)
        """
        wrong = ~right
        _, place, count = doubt.unique(return_inverse=True, return_counts=True)
        share = torch.zeros(len(count), dtype=torch.double).scatter_add(0, place, wrong.double()) / count
        risk = _mean_so_far(share.repeat_interleave(count))
        best = _mean_so_far(wrong.sort().values.double())
        coverage = tuple((i + 1) / len(doubt) for i in range(len(doubt)))
        return cls(coverage, tuple(risk.tolist()), float(risk.mean()), float(best.mean()), float(wrong.double().mean()))

    def at(self, n_points: int = 50) -> list[dict[str, float]]:
        """At most so many points of the curve, evenly spread over coverage."""
        n = len(self.coverage)
        chosen = sorted({round(i) for i in torch.linspace(0, n - 1, min(n, n_points)).tolist()})
        return [{"coverage": round(self.coverage[i], 4), "risk": round(self.risk[i], 4)} for i in chosen]


def _mean_so_far(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return values.cumsum(0) / torch.arange(1, len(values) + 1)
