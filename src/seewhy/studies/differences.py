"""Which differences between several encoders are real: on the same pictures, corrected for how many there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..evaluation.faithfulness import N_FEWEST
from .bootstrap import EQUAL, holm
from .student import Error, beyond, within


@dataclass(frozen=True)
class Measure:
    """One number, of each encoder, draw and test picture.

    Attributes:
        name: of the measure.
        family: under which it is shown.
        values: NaN where a picture was not asked, which is the same for all encoders and draws.
        bounds: what the mean cannot leave, where values can.
    """

    name: str
    family: str
    values: Float[Tensor, "m r t"]
    bounds: tuple[float, float] = (-math.inf, math.inf)


class Mean(NamedTuple):
    """A mean over test pictures and draws, and what is not known of it.

    Attributes:
        value: the mean.
        errors: standard errors, of other draws and of other pictures.
    """

    value: float
    errors: tuple[Error, Error]

    @property
    def p(self) -> float:
        """Two-sided, of a mean of 0."""
        return beyond(self.value, self.errors)

    def interval(self, level: float) -> tuple[float, float]:
        off = within(level, self.errors)
        return self.value - off, self.value + off


def mean_of(values: Float[Tensor, "r t"], groups: Int[Tensor, " t"]) -> Mean:
    """Mean of what was asked, with pictures and draws as two crossed samples.

    ``var(means of draws) / r`` with ``r - 1`` degrees of freedom, and ``G / (G - 1) Σ_g (Σ_{i in g} x_i - mean)² / t²``
    over groups ``g`` of pictures with ``G - 1``; what differs from draw to draw and picture to picture at once is in
    both, which is a little too much. Percentiles of a bootstrap of five draws, and Welch's degrees of freedom, are too
    sure of themselves (docs/transfer.md has the figures).

    >>> mean_of(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.arange(4)).errors[1]
    Error(size=0.28867513459481287, freedom=3)
    """
    asked = values[0].isfinite()
    x, names = values[:, asked].double(), groups[asked].unique(return_inverse=True)[1]
    n_draws, n, n_groups = len(x), x.shape[1], int(names.max()) + 1
    value = x.mean()
    of_draws = float(x.mean(1).std()) / n_draws**0.5 if n_draws > 1 else 0.0
    apart = torch.zeros(n_groups, dtype=torch.double).index_add_(0, names, x.mean(0) - value)
    of_pictures = float(apart.square().sum() * n_groups / max(1, n_groups - 1)) ** 0.5 / n
    return Mean(float(value), (Error(of_draws, max(1, n_draws - 1)), Error(of_pictures, max(1, n_groups - 1))))


def compared(
    measures: Sequence[Measure],
    names: Sequence[str],
    groups: Int[Tensor, " t"],
    level: float = 0.95,
    between: Sequence[tuple[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """Each measure's table: every encoder's number with its interval, every pair's difference, and which are real.

    Differences are of the same pictures and the same draws. One is real where its p value, corrected over all pairs
    and measures (Holm 1979), is below 1 - level, and at least :data:`~.tables.N_FEWEST` things were tested on.
    Intervals are not corrected.

    Args:
        measures: of the same test pictures.
        names: of the encoders.
        groups: of the test pictures; those of one are one thing.
        level: of intervals, and 1 less what p must be below.
        between: pairs of names that are compared; left out, all.
    """
    chosen = itertools.combinations(names, 2) if between is None else between
    pairs = [(names.index(a), names.index(b)) for a, b in chosen]
    apart = [[mean_of(m.values[i] - m.values[j], groups) for i, j in pairs] for m in measures]
    corrected = iter(holm([one.p for found in apart for one in found]))
    return [
        _table(m, names, groups, list(zip(pairs, found, strict=True)), corrected, level)
        for m, found in zip(measures, apart, strict=True)
    ]


def _table(
    measure: Measure,
    names: Sequence[str],
    groups: Tensor,
    apart: Sequence[tuple[tuple[int, int], Mean]],
    corrected: Iterator[float],
    level: float,
) -> dict[str, Any]:
    asked = measure.values[0, 0].isfinite()
    enough = len(groups[asked].unique()) >= N_FEWEST
    rows = []
    for name, values in zip(names, measure.values, strict=True):
        own = mean_of(values, groups)
        low, high = own.interval(level)
        least = max(min(float(values[:, asked].min()), 0.0), measure.bounds[0])
        most = min(max(float(values[:, asked].max()), 0.0), measure.bounds[1])
        rows.append(
            {
                "encoder": name, "value": round(own.value, 4),
                "interval": [round(max(low, least), 4), round(min(high, most), 4)],
                "by_draw": [round(v, 4) for v in values[:, asked].double().mean(1).tolist()],
            }
        )  # fmt: skip
    differences = []
    for (i, j), one in apart:
        p = next(corrected)
        real = enough and p < 1 - level - EQUAL
        differences.append(
            {
                "a": names[i], "b": names[j], "difference": round(one.value, 4),
                "interval": [round(v, 4) for v in one.interval(level)],
                "p": float(f"{one.p:.3g}"), "p_corrected": float(f"{p:.3g}"), "real": real,
                "better": (names[i] if one.value > 0 else names[j]) if real else None,
            }
        )  # fmt: skip
    return {
        "measure": measure.name, "family": measure.family, "n": int(asked.sum()), "n_draws": measure.values.shape[1],
        "rows": rows, "differences": differences,
    }  # fmt: skip


def standings(tables: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Encoders by real differences won less those lost, best first."""
    found: list[dict[str, Any]] = []
    for name in names:
        own = [d for t in tables for d in t["differences"] if name in (d["a"], d["b"])]
        won = sum(d["better"] == name for d in own)
        lost = sum(d["real"] for d in own) - won
        found.append({"encoder": name, "won": won, "lost": lost, "compared": len(own)})
    return sorted(found, key=lambda one: one["lost"] - one["won"])


def said_of(tables: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """The best encoder against each of the others, in words."""
    best, *others = [s["encoder"] for s in standings(tables, names)]
    if not others:
        return f"{best} alone was measured, so nothing is compared"
    parts = []
    for other in others:
        between = [d for t in tables for d in t["differences"] if {d["a"], d["b"]} == {best, other}]
        won, lost = (sum(d["better"] == one for d in between) for one in (best, other))
        if not won and not lost:
            parts.append(f"no difference between {best} and {other} is real in {len(between)} measures")
        else:
            parts.append(f"{best} is really better than {other} in {won} of {len(between)} measures, worse in {lost}")
    return "; ".join(parts)
