"""A metric's table: every method's number with its interval, and every pair's difference on the pictures they share."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..evaluation.faithfulness import N_FEWEST
from ..metrics import Metric
from .bootstrap import Paired, paired

Row = dict[str, Any]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        n_draws: resampled sets of pictures.
        level: of the intervals.
        seed: of the draws.
    """

    n_draws: int = 2000
    level: float = 0.95
    seed: int = 0


def table(
    label: str, metric: Metric, rows: Sequence[Row], names: Sequence[str], controls: set[str], how: Resampling
) -> dict[str, Any] | None:
    """One metric's lines and differences; None where nothing was measured.

    Each line is of all pictures the method was measured on, each difference of those that both were.

    Args:
        label: the metric's name here.
        metric: what combines pictures into a number.
        rows: a study's records, of any metric.
        names: methods, then controls.
        controls: which of the names are controls.
        how: intervals are made.
    """
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["metric"] == label:
            found[row["method"]][row["digest"]] = row
    shown = [n for n in names if n in found]
    if not shown:
        return None
    sets = _Sets(metric, found, how)
    lines = [_line(name, name in controls, found[name], sets) for name in shown]
    first = next(iter(found[shown[0]].values()))
    return {
        "metric": label,
        "family": metric.family,
        "higher_is_better": metric.higher_is_better,
        "n": max(line["n"] for line in lines),
        "rows": lines,
        "differences": _differences(shown, controls, metric.higher_is_better, sets),
        "settings": {k: v for k, v in first["settings"].items() if k != "target"},
    }


class _Sets:
    """Resampling of every set of pictures that methods share; each set is drawn once for all who have it."""

    def __init__(self, metric: Metric, found: Mapping[str, dict[str, Row]], how: Resampling) -> None:
        self.metric, self.found, self.how = metric, found, how
        self.pictures = {name: frozenset(rows) for name, rows in found.items()}
        self._drawn: dict[frozenset[str], tuple[list[str], Paired]] = {}

    def __call__(self, *names: str) -> tuple[list[int], Paired | None, int]:
        """Where the methods stand in the resampling of the pictures they share, and how many those are."""
        shared = frozenset.intersection(*(self.pictures[n] for n in names))
        if not shared:
            return [], None, 0
        if shared not in self._drawn:
            able = [n for n, pictures in self.pictures.items() if shared <= pictures]
            digests = [d for d in self.found[able[0]] if d in shared]
            sums = torch.tensor([[self.found[n][d]["sums"] for n in able] for d in digests], dtype=torch.double)
            how = self.how
            drawn = paired(sums, self.metric.combine, n_draws=how.n_draws, level=how.level, seed=how.seed)
            self._drawn[shared] = able, drawn
        able, drawn = self._drawn[shared]
        return [able.index(n) for n in names], drawn, len(shared)


def _line(name: str, is_control: bool, rows: Mapping[str, Row], sets: _Sets) -> dict[str, Any]:
    (i,), drawn, n = sets(name)
    assert drawn is not None
    line = {
        "method": name,
        "control": is_control,
        "n": n,
        "value": float(drawn.values[i]),
        "interval": list(drawn.interval(i)),
    }
    if all("mean_map" in row["parts"] for row in rows.values()):
        line["mean_map"] = sum(row["parts"]["mean_map"] for row in rows.values()) / n
    return line


def _differences(names: Sequence[str], controls: set[str], higher_is_better: bool, sets: _Sets) -> list[dict[str, Any]]:
    """Every pair with at least one method in it."""
    found = []
    for a, b in itertools.combinations(names, 2):
        places, drawn, n = sets(a, b)
        if a in controls or drawn is None:
            continue
        difference, interval, apart = drawn.difference(*places)
        real = apart and n >= N_FEWEST
        found.append(
            {
                "a": a,
                "b": b,
                "control": b in controls,
                "n": n,
                "difference": difference,
                "interval": list(interval),
                "real": real,
                "better": (a if (difference > 0) is higher_is_better else b) if real else None,
            }
        )
    return found
