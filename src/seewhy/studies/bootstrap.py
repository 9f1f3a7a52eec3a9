"""Intervals of numbers that were measured on the same pictures, by resampling these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Combine = Callable[[Float[Tensor, "*n v"]], Float[Tensor, "*n"]]
EQUAL = 1e-9  # sums in another order may differ by this much, which is no difference
N_BINS = 15
CALIBRATION = "calibration error, "


@dataclass(frozen=True)
class Paired:
    """What resampling pictures says of several methods at once."""

    values: Float[Tensor, " m"]
    draws: Float[Tensor, "d m"]
    level: float = 0.95

    def interval(self, i: int) -> tuple[float, float]:
        """Percentile interval of one method's number."""
        return percentiles(self.draws[:, i], self.level)

    def difference(self, i: int, j: int) -> tuple[float, tuple[float, float], bool]:
        """``value_i - value_j``, its interval, and whether that lies to one side of 0."""
        low, high = percentiles(self.draws[:, i] - self.draws[:, j], self.level)
        return float(self.values[i] - self.values[j]), (low, high), low > EQUAL or high < -EQUAL

    def figure(self, i: int) -> dict[str, Any]:
        """A method's number with its interval, for JSON."""
        return figure(self.values[i], self.interval(i))


def paired(
    sums: Float[Tensor, "n m v"],
    combine: Combine,
    *,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    strata: Int[Tensor, " n"] | None = None,
) -> Paired:
    """Resample pictures with replacement, every method on the same ones; ``combine`` makes its number of means over
    pictures.

    With ``strata`` each draw has as many of every stratum as there are, for numbers that do not exist where one is
    empty.
    """
    n, m, v = sums.shape
    strata = torch.zeros(n) if strata is None else strata
    among = [(strata == s).nonzero()[:, 0] for s in strata.unique()]
    flat = sums.double().reshape(n, m * v)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for size in torch.ones(n_draws).split(250):
        own = [rows[torch.randint(len(rows), (len(size), len(rows)), generator=generator)] for rows in among]
        weights = counts(torch.cat(own, 1), n)
        parts.append(combine((weights @ flat / n).reshape(len(size), m, v)))
    return Paired(combine(flat.mean(0).reshape(m, v)), torch.cat(parts), level)


def paired_means(values: Float[Tensor, "n m"], **how: Any) -> Paired:
    """As :func:`paired`, of numbers that are means over pictures."""
    return paired(values[..., None], lambda means: means[..., 0], **how)


def counts(drawn: Int[Tensor, "*d k"], n: int) -> Float[Tensor, "*d n"]:
    """How often each of ``n`` was drawn."""
    zeros = torch.zeros(*drawn.shape[:-1], n, dtype=torch.double)
    return zeros.scatter_add_(-1, drawn, torch.ones_like(drawn, dtype=torch.double))


def percentiles(draws: Float[Tensor, " d"], level: float) -> tuple[float, float]:
    low, high = draws.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=draws.dtype)).tolist()
    return low, high


def rounded(values: Sequence[float]) -> list[float]:
    return [round(float(v), 4) for v in values]


def figure(value: Tensor | float, interval: Sequence[float]) -> dict[str, Any]:
    return {"value": round(float(value), 4), "interval": rounded(interval)}


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


def fisher(right: int, n: int, right_rest: int, n_rest: int) -> float:
    """Fisher's exact test, two-sided: how often tables at least as unlikely come of nothing."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[right, n - right], [right_rest, n_rest - right_rest]])[1])


def ratio(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """Hits of tries."""
    return means[..., 0] / means[..., 1].clamp(min=1e-12)


def gap(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """Expected calibration error from what :func:`calibration_sums` gives."""
    return means[..., :-1].abs().sum(-1) / means[..., -1].clamp(min=1e-12)


def harmonic(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """``2 b n / (b + n)`` of two parts' hits of tries."""
    b, n = ratio(means[..., :2]), ratio(means[..., 2:])
    return 2 * b * n / (b + n).clamp(min=1e-12)


def accuracy_sums(right: Bool[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Hits and tries of each picture."""
    return torch.stack([right.float(), torch.ones(len(right))], 1)


def calibration_sums(
    confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"], n_bins: int = N_BINS
) -> Float[Tensor, "n v"]:
    """What each picture adds to the gap of its bin of confidence; and one, its own weight."""
    place = (confidence * n_bins).long().clamp(0, n_bins - 1)
    sums = torch.zeros(len(confidence), n_bins + 1)
    sums[torch.arange(len(sums)), place] = right.float() - confidence
    sums[:, -1] = 1
    return sums


def measure_row(
    name: str,
    hits: Sequence[Float[Tensor, "n v"]],
    groups: Tensor | None = None,
    seed: int = 0,
    combine: Combine = ratio,
    strata: Tensor | None = None,
) -> dict[str, Any]:
    """A measure before and after a training, or after alone, with intervals; pictures of one group are drawn together,
    or, without groups, as many of every stratum as there are."""
    sums = torch.stack(list(hits), 1)
    n, last = len(sums), len(hits) - 1
    if groups is not None:
        groups = groups.unique(return_inverse=True)[1]
        sums = torch.zeros(int(groups.max()) + 1, *sums.shape[1:]).index_add_(0, groups, sums)
    found = paired(sums, combine, seed=seed, strata=None if groups is not None else strata)
    after, before = found.figure(last), found.figure(0)
    row: dict[str, Any] = {"measure": name, "n": n, "after": after["value"], "after_interval": after["interval"]}
    if last:
        difference, interval, real = found.difference(1, 0)
        row |= {"before": before["value"], "before_interval": before["interval"]}
        row |= {"difference": round(difference, 4), "difference_interval": rounded(interval), "real": real}
    return row


def told_rows(
    name: str, told: Sequence[tuple[Bool[Tensor, " n"], Float[Tensor, " n"]]], groups: Tensor | None, seed: int
) -> list[dict[str, Any]]:
    """How often pictures are told right, and how well the probability says so, before and after."""
    right, gaps = [accuracy_sums(r) for r, _ in told], [calibration_sums(p, r) for r, p in told]
    return [measure_row(name, right, groups, seed), measure_row(f"{CALIBRATION}{name}", gaps, groups, seed, gap)]
