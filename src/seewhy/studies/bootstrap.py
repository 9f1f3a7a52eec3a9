"""Confidence intervals of paired measurements, and tests of their differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..evaluation.figures import N_FEWEST

Combine = Callable[[Float[Tensor, "*n v"]], Float[Tensor, "*n"]]
EQUAL = 1e-9  # rounding error of sums
N_BINS = 15
CALIBRATION = "calibration error, "


@dataclass(frozen=True)
class Paired:
    """Bootstrap resamples of the results of several methods on the same pictures."""

    values: Float[Tensor, " m"]
    draws: Float[Tensor, "d m"]
    level: float = 0.95

    def interval(self, i: int) -> tuple[float, float]:
        return percentiles(self.draws[:, i], self.level)

    def difference(self, i: int, j: int) -> tuple[float, tuple[float, float], bool]:
        """Return ``value_i - value_j``, its interval, and whether the interval excludes 0."""
        low, high = percentiles(self.draws[:, i] - self.draws[:, j], self.level)
        return float(self.values[i] - self.values[j]), (low, high), low > EQUAL or high < -EQUAL

    def change(self, i: int, j: int) -> dict[str, Any]:
        """Return :meth:`difference` for the JSON."""
        value, interval, real = self.difference(i, j)
        return {"difference": round(value, 4), "interval": rounded(interval), "real": real}

    def figure(self, i: int) -> dict[str, Any]:
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
    """Resample pictures with replacement, the same pictures for every method; ``combine`` takes means over pictures.

    With ``strata``, each resample has as many pictures of every stratum as the data have.
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
    """Call :func:`paired` with the mean over pictures as ``combine``."""
    return paired(values[..., None], lambda means: means[..., 0], **how)


def group_sums(values: Float[Tensor, "n ..."], groups: Int[Tensor, " n"]) -> Float[Tensor, "g ..."]:
    """Return the sum of the values in each group; the names of the groups need not be consecutive."""
    place = groups.unique(return_inverse=True)[1]
    return values.new_zeros(int(place.max()) + 1, *values.shape[1:]).index_add_(0, place, values)


def counts(drawn: Int[Tensor, "*d k"], n: int) -> Float[Tensor, "*d n"]:
    """Return how often each index below ``n`` was drawn."""
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
    """Adjust p values for multiple comparisons by the method of Holm (1979)."""
    found, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        found[i] = highest
    return found


def fisher(right: int, n: int, right_rest: int, n_rest: int) -> float:
    """Return the two-sided p value of Fisher's exact test."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[right, n - right], [right_rest, n_rest - right_rest]])[1])


def ratio(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """Return hits divided by tries."""
    return means[..., 0] / means[..., 1].clamp(min=1e-12)


def gap(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """Return the expected calibration error from the means of :func:`calibration_sums`."""
    return means[..., :-1].abs().sum(-1) / means[..., -1].clamp(min=1e-12)


def harmonic(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """Return the harmonic mean of two accuracies, each from two columns: mean hits and mean tries."""
    b, n = ratio(means[..., :2]), ratio(means[..., 2:])
    return 2 * b * n / (b + n).clamp(min=1e-12)


def accuracy_sums(right: Bool[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Return hits and tries of each picture."""
    return torch.stack([right.float(), torch.ones(len(right))], 1)


def calibration_sums(confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> Float[Tensor, "n v"]:
    """Return, for each picture, the terms that :func:`gap` averages to the expected calibration error."""
    place = (confidence * N_BINS).long().clamp(0, N_BINS - 1)
    sums = torch.zeros(len(confidence), N_BINS + 1)
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
    """Return a measurement with its interval, and its change if ``hits`` has results before and after training.

    Pictures of a group are resampled together. Without groups, each resample has as many pictures of every stratum as
    the data have.
    """
    sums = torch.stack(list(hits), 1)
    n, last = len(sums), len(hits) - 1
    if groups is not None:
        sums = group_sums(sums, groups)
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
    right, gaps = [accuracy_sums(r) for r, _ in told], [calibration_sums(p, r) for r, p in told]
    return [measure_row(name, right, groups, seed), measure_row(f"{CALIBRATION}{name}", gaps, groups, seed, gap)]


N_TABLED = 2001
"""Number of points at which Student's distribution is tabulated."""


class Error(NamedTuple):
    """A standard error and its degrees of freedom."""

    size: float
    freedom: int


@cache
def _student(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a table of Student's distribution: values with their weights."""
    most = min(1.0, 20 / math.sqrt(freedom) / (math.pi / 2))  # beyond 20 standard deviations there is nothing
    a = np.linspace(-1, 1, N_TABLED + 2)[1:-1] * math.pi / 2 * most
    weight = np.cos(a) ** (freedom - 1)
    return math.sqrt(freedom) * np.tan(a), weight / weight.sum()


def beyond(value: float, errors: Sequence[Error]) -> float:
    """Return the two-sided p value of a number whose error is ``Σ size · t(freedom)``.

    One error gives Student's test, two give the test of Behrens and Fisher.
    """
    large = sorted((error for error in errors if error.size > 1e-12), key=lambda error: error.freedom)
    if not large:
        return 1.0 if abs(value) < 1e-12 else 0.0
    from scipy.stats import t

    last, shift, weight = large[-1], np.zeros(1), np.ones(1)
    if len(large) > 1:
        shift, weight = _student(large[0].freedom)
        shift = shift * large[0].size
    tails = t.sf((abs(value) + shift) / last.size, last.freedom) + t.sf((abs(value) - shift) / last.size, last.freedom)
    return min(1.0, float((weight * tails).sum()))


def one_sided(value: float, error: Error) -> float:
    """Return the one-sided p value for a number above 0, given its standard error."""
    both = beyond(value, [error])
    return both / 2 if value > 0 else 1 - both / 2


def within(level: float, errors: Sequence[Error]) -> float:
    """Return the half-width of the confidence interval at this level, given the standard errors."""
    from scipy.optimize import brentq

    high = 50 * sum(error.size for error in errors)
    return float(brentq(lambda value: beyond(value, errors) - (1 - level), 0.0, high)) if high > 0 else 0.0


@dataclass(frozen=True)
class Measure:
    name: str
    family: str
    values: Float[Tensor, "m r t"]
    bounds: tuple[float, float] = (-math.inf, math.inf)


class Mean(NamedTuple):
    """A mean over test pictures and draws, with the standard errors over draws and over pictures."""

    value: float
    errors: tuple[Error, Error]

    @property
    def p(self) -> float:
        return beyond(self.value, self.errors)

    def interval(self, level: float) -> tuple[float, float]:
        off = within(level, self.errors)
        return self.value - off, self.value + off


def mean_of(values: Float[Tensor, "r t"], groups: Int[Tensor, " t"]) -> Mean:
    """Return the mean of all finite numbers, with its standard errors over pictures and over draws.

    The variance over ``r`` draws has ``r - 1`` degrees of freedom. The variance over ``G`` groups ``g`` has ``G - 1``
    degrees of freedom. For ``t`` pictures with the values ``x_i``, the variance over groups is::

        G / (G - 1) · Σ_g (Σ_{i in g} x_i - mean)² / t²

    Both variances include the interaction of pictures and draws, so the intervals are slightly too wide.
    """
    asked = values[0].isfinite()
    x = values[:, asked].double()
    n_draws, n = x.shape
    value = x.mean()
    of_draws = float(x.mean(1).std()) / n_draws**0.5 if n_draws > 1 else 0.0
    apart = group_sums(x.mean(0) - value, groups[asked])
    n_groups = len(apart)
    of_pictures = float(apart.square().sum() * n_groups / max(1, n_groups - 1)) ** 0.5 / n
    return Mean(float(value), (Error(of_draws, max(1, n_draws - 1)), Error(of_pictures, max(1, n_groups - 1))))


def compared(
    measures: Sequence[Measure],
    names: Sequence[str],
    groups: Int[Tensor, " t"],
    level: float = 0.95,
    between: Sequence[tuple[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """Return a table for each measure: the value of every encoder with its interval, and the differences of all pairs.

    A difference is real if the p value, corrected over all pairs and measures (Holm 1979), is below ``1 - level`` and
    at least :data:`~seewhy.evaluation.figures.N_FEWEST` groups were tested. Intervals are not corrected for multiple
    comparisons. Intervals are clipped to the range of possible values.

    Args:
        between: pairs of encoders to compare; default: all pairs.
    """
    pairs = list(itertools.combinations(names, 2) if between is None else between)
    places = [(names.index(a), names.index(b)) for a, b in pairs]
    apart = [[mean_of(m.values[i] - m.values[j], groups) for i, j in places] for m in measures]
    corrected = iter(holm([one.p for found in apart for one in found]))
    tables = []
    for measure, found in zip(measures, apart, strict=True):
        asked = measure.values[0, 0].isfinite()
        enough = len(groups[asked].unique()) >= N_FEWEST
        most = measure.bounds[1] - measure.bounds[0]
        differences = [
            _difference(pair, one, corrected, level, enough, most) for pair, one in zip(pairs, found, strict=True)
        ]
        tables.append(
            {
                "measure": measure.name, "family": measure.family, "n": int(asked.sum()),
                "n_draws": measure.values.shape[1],
                "rows": [_row(name, v, measure, groups, level) for name, v in zip(names, measure.values, strict=True)],
                "differences": differences,
            }
        )  # fmt: skip
    return tables


def _row(name: str, values: Tensor, measure: Measure, groups: Tensor, level: float) -> dict[str, Any]:
    own, asked = mean_of(values, groups), values[:, values[0].isfinite()]
    low, high = own.interval(level)
    least = max(min(float(asked.min()), 0.0), measure.bounds[0])
    most = min(max(float(asked.max()), 0.0), measure.bounds[1])
    return {
        "encoder": name, "value": round(own.value, 4), "interval": rounded([max(low, least), min(high, most)]),
        "by_draw": rounded(asked.double().mean(1).tolist()),
    }  # fmt: skip


def _difference(
    pair: tuple[str, str], found: Mean, corrected: Iterator[float], level: float, enough: bool, most: float
) -> dict[str, Any]:
    """Build the row of one pair, with the interval clipped to possible values."""
    p, (low, high) = next(corrected), found.interval(level)
    real = enough and p < 1 - level - EQUAL
    return {
        "a": pair[0], "b": pair[1], "difference": round(found.value, 4),
        "interval": rounded([max(low, -most), min(high, most)]),
        "p": float(f"{found.p:.3g}"), "p_corrected": float(f"{p:.3g}"), "real": real,
        "better": pair[found.value <= 0] if real else None,
    }  # fmt: skip


def standings(tables: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the encoders, sorted by significant differences won minus lost."""
    found: list[dict[str, Any]] = []
    for name in names:
        own = [d for t in tables for d in t["differences"] if name in (d["a"], d["b"])]
        won = sum(d["better"] == name for d in own)
        found.append({"encoder": name, "won": won, "lost": sum(d["real"] for d in own) - won, "compared": len(own)})
    return sorted(found, key=lambda row: row["lost"] - row["won"])


def said_of(tables: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Return sentences that compare the best encoder with each other encoder."""
    best, *others = [s["encoder"] for s in standings(tables, names)]
    if not others:
        return f"Only {best} was measured, so there is nothing to compare it with"
    parts = []
    for other in others:
        between = [d for t in tables for d in t["differences"] if {d["a"], d["b"]} == {best, other}]
        won, lost = (sum(d["better"] == one for d in between) for one in (best, other))
        n = f"{len(between)} measure{'s' * (len(between) != 1)}"
        if not won and not lost:
            parts.append(f"In {n}, no difference between {best} and {other} is real")
        else:
            parts.append(f"{best} beats {other} on {won} of {n}, and loses on {lost}")
    return ". ".join(parts)
