"""From a study's numbers to its table, its differences and its sentence."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..metrics import Metric
from ..page import Page
from ..types import Failure
from .bootstrap import Paired, kendall_tau, paired

N_FEWEST = 10
"""Pictures below which no difference is called real: the bootstrap is too sure of itself on fewer."""
RANDOM = "random"
FILLS = {"mean": "deletion", "black": "deletion_black", "blur": "deletion_blur"}


@dataclass(frozen=True)
class Findings(Page):
    """What a study found; ``data`` is its JSON."""

    @property
    def sentence(self) -> str:
        return str(self.data["sentence"])

    def to_html(self) -> str:
        from ..card.study import render_study

        return render_study(self.data)


def findings(
    rows: Sequence[dict[str, Any]],
    metrics: Mapping[str, Metric],
    methods: Sequence[str],
    controls: Sequence[str],
    *,
    model: dict[str, str],
    n_draws: int,
    level: float,
    seed: int,
    failures: Sequence[Failure] = (),
    notes: Sequence[str] = (),
) -> Findings:
    """Table, differences, agreement between fills, and the sentence.

    Args:
        rows: a study's records.
        metrics: by label.
        methods: names, in the order shown.
        controls: names, in the order shown.
        model: its provenance.
        n_draws: resampled sets of pictures.
        level: of the intervals.
        seed: of the draws.
        failures: pictures that could not be read.
        notes: what else is to be said.
    """
    names = [*methods, *controls]
    tables = {}
    for label, metric in metrics.items():
        table = _table(label, metric, rows, names, set(controls), n_draws, level, seed)
        if table is not None:
            tables[label] = table
    agreement = _agreement(tables, methods)
    return Findings(
        {
            "study": "faithfulness",
            "model": model,
            "n": max((t["n"] for t in tables.values()), default=0),
            "methods": list(methods),
            "controls": list(controls),
            "sentence": sentence(tables, methods),
            "metrics": list(tables.values()),
            "fills": agreement,
            "settings": {"seed": seed, "n_draws": n_draws, "level": level, "class": "predicted"},
            "notes": list(notes),
            "failures": [f.to_json() for f in failures],
        }
    )


def _table(
    label: str,
    metric: Metric,
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    controls: set[str],
    n_draws: int,
    level: float,
    seed: int,
) -> dict[str, Any] | None:
    """One metric: every method's number with its interval, on the pictures where all were measured."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["metric"] == label:
            found[row["digest"]][row["method"]] = row
    whole = [by_name for by_name in found.values() if all(n in by_name for n in names)]
    if not whole:
        return None
    sums = torch.tensor([[by_name[n]["sums"] for n in names] for by_name in whole], dtype=torch.double)
    resampled = paired(sums, metric.combine, n_draws=n_draws, level=level, seed=seed)
    settings = {k: v for k, v in whole[0][names[0]]["settings"].items() if k != "target"}
    lines = []
    for i, name in enumerate(names):
        low, high = resampled.interval(i)
        line = {
            "method": name,
            "control": name in controls,
            "value": float(resampled.values[i]),
            "interval": [low, high],
        }
        if "mean_map" in whole[0][name]["parts"]:
            line["mean_map"] = sum(w[name]["parts"]["mean_map"] for w in whole) / len(whole)
        lines.append(line)
    return {
        "metric": label,
        "family": metric.family,
        "higher_is_better": metric.higher_is_better,
        "n": len(whole),
        "rows": lines,
        "differences": _differences(resampled, names, controls, metric.higher_is_better, len(whole)),
        "settings": settings,
    }


def _differences(
    resampled: Paired, names: Sequence[str], controls: set[str], higher_is_better: bool, n: int
) -> list[dict[str, Any]]:
    """Every pair with at least one method in it."""
    found = []
    for i, j in itertools.combinations(range(len(names)), 2):
        if names[i] in controls:
            continue
        difference, interval, apart = resampled.difference(i, j)
        real = apart and n >= N_FEWEST
        better = (names[i] if (difference > 0) is higher_is_better else names[j]) if real else None
        found.append(
            {
                "a": names[i],
                "b": names[j],
                "control": names[j] in controls,
                "difference": difference,
                "interval": list(interval),
                "real": real,
                "better": better,
            }
        )
    return found


def _agreement(tables: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> dict[str, float] | None:
    """Kendall's τ between the rankings of the methods that deletion gives with each fill."""
    if len(methods) < 2:
        return None
    values = {
        fill: [r["value"] for r in tables[label]["rows"] if not r["control"]]
        for fill, label in FILLS.items()
        if label in tables
    }
    pairs = itertools.combinations(values, 2)
    return {f"{a}, {b}": round(kendall_tau(values[a], values[b]), 4) for a, b in pairs} or None


def sentence(tables: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> str:
    """Which differences are real, in one sentence."""
    n = max((t["n"] for t in tables.values()), default=0)
    if n < N_FEWEST:
        return f"{n} pictures are too few to call any difference real; give at least {N_FEWEST}."
    pairs = [(label, d) for label, t in tables.items() for d in t["differences"] if not d["control"]]
    real = [(label, d) for label, d in pairs if d["real"]]
    if not pairs:
        first = "There is only one method"
    elif not real:
        first = f"None of the {len(pairs)} differences between methods is real"
    else:
        first = f"{len(real)} of {len(pairs)} differences between methods are real: {_named(real)}"
    return f"On {n} pictures: {first}; {_against_random(tables, methods)}."


def _named(real: Sequence[tuple[str, dict[str, Any]]], most: int = 6) -> str:
    """Winners and losers, metric by metric."""
    by_pair: dict[tuple[str, str], list[str]] = defaultdict(list)
    for label, d in real:
        loser = d["b"] if d["better"] == d["a"] else d["a"]
        by_pair[d["better"], loser].append(label)
    ordered = sorted(by_pair.items(), key=lambda item: -len(item[1]))
    said = [f"{a} is better than {b} on {', '.join(labels)}" for (a, b), labels in ordered[:most]]
    return "; ".join(said) + (f"; and {len(ordered) - most} more pairs" if len(ordered) > most else "")


def _against_random(tables: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> str:
    """On which metrics of faithfulness each method beats the random map."""
    judged = [t for t in tables.values() if t["family"] == "faithfulness"]
    said = []
    for name in methods:
        won = [t["metric"] for t in judged if any(_beats(d, name) for d in t["differences"])]
        every = len(won) == len(judged)
        said.append(f"{name} {'on every one' if every else 'on ' + ', '.join(won) if won else 'on none'}")
    return f"of {len(judged)} metrics of faithfulness, better than a random map is {', '.join(said)}"


def _beats(difference: dict[str, Any], name: str) -> bool:
    return difference["a"] == name and difference["b"] == RANDOM and difference["better"] == name
