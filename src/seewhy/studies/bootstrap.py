"""Intervals of numbers that were measured on the same pictures, and agreement of rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Combine = Callable[[Float[Tensor, "*n v"]], Float[Tensor, "*n"]]
EQUAL = 1e-9  # sums in another order may differ by this much, which is no difference


@dataclass(frozen=True)
class Paired:
    """What resampling pictures says of several methods at once.

    Attributes:
        values: each method's number on all pictures.
        draws: the same on each resampled set of pictures; the same pictures for all methods.
        level: of the intervals.
    """

    values: Float[Tensor, " m"]
    draws: Float[Tensor, "d m"]
    level: float = 0.95

    def interval(self, i: int) -> tuple[float, float]:
        """Percentile interval of one method's number."""
        return _percentiles(self.draws[:, i], self.level)

    def difference(self, i: int, j: int) -> tuple[float, tuple[float, float], bool]:
        """``value_i - value_j``, its interval, and whether that lies to one side of 0."""
        low, high = _percentiles(self.draws[:, i] - self.draws[:, j], self.level)
        return float(self.values[i] - self.values[j]), (low, high), low > EQUAL or high < -EQUAL


def paired(
    sums: Float[Tensor, "n m v"],
    combine: Combine,
    *,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    strata: Int[Tensor, " n"] | None = None,
) -> Paired:
    """Resample pictures with replacement, every method on the same ones.

    Args:
        sums: what each picture adds to each method's number.
        combine: means over pictures → the number.
        n_draws: resampled sets.
        level: of the intervals.
        seed: of the draws.
        strata: of each picture; given, each draw has as many of every stratum as there are. For numbers that do not
            exist where one is empty.
    """
    n, m, v = sums.shape
    among = [torch.arange(n)] if strata is None else [(strata == s).nonzero()[:, 0] for s in strata.unique()]
    flat = sums.double().reshape(n, m * v)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for size in torch.ones(n_draws).split(250):
        own = [rows[torch.randint(len(rows), (len(size), len(rows)), generator=generator)] for rows in among]
        drawn = torch.cat(own, 1)
        weights = counts(drawn, n)
        parts.append(combine((weights @ flat / n).reshape(len(size), m, v)))
    return Paired(combine(flat.mean(0).reshape(m, v)), torch.cat(parts), level)


def counts(drawn: Int[Tensor, "*d k"], n: int) -> Float[Tensor, "*d n"]:
    """How often each of ``n`` was drawn.

    >>> counts(torch.tensor([[0, 2, 2]]), 3).tolist()
    [[1.0, 0.0, 2.0]]
    """
    zeros = torch.zeros(*drawn.shape[:-1], n, dtype=torch.double)
    return zeros.scatter_add_(-1, drawn, torch.ones_like(drawn, dtype=torch.double))


def group_weights(groups: Int[Tensor, " n"], n_draws: int, generator: torch.Generator) -> Float[Tensor, "d n"]:
    """How often each picture is in each resampled set, those of one group together."""
    names = groups.unique(return_inverse=True)[1]
    n_groups = int(names.max()) + 1
    return counts(torch.randint(n_groups, (n_draws, n_groups), generator=generator), n_groups)[:, names]


def holm(p: Sequence[float]) -> list[float]:
    """p values that hold for all comparisons together (Holm 1979): the smallest times their number, and so on.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    found, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        found[i] = highest
    return found


def _percentiles(draws: Float[Tensor, " d"], level: float) -> tuple[float, float]:
    edges = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=draws.dtype)
    low, high = torch.quantile(draws, edges).tolist()
    return low, high


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Agreement of two rankings (τ-b): 1 the same order, −1 the reverse, 0 where one of them has no order.

    >>> kendall_tau([1, 2, 3], [1, 2, 3]), kendall_tau([1, 2, 3], [3, 2, 1])
    (1.0, -1.0)
    """
    x, y = (torch.tensor(list(v), dtype=torch.double) for v in (a, b))
    above = torch.triu(torch.ones(len(x), len(x)), 1) > 0
    signs_x, signs_y = (torch.sign(v[:, None] - v[None])[above] for v in (x, y))
    norm = float((signs_x.abs().sum() * signs_y.abs().sum()).sqrt())
    return float((signs_x * signs_y).sum()) / norm if norm else 0.0
