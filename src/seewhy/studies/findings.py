"""From a study's numbers to its tables, its ranking and its sentence."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..evaluation.faithfulness import N_FEWEST
from ..metrics import Metric
from ..report.paging import Answer
from ..types import Failure
from .bootstrap import kendall_tau
from .tables import Resampling, Row, table

RANDOM = "random"
FILLS = {"mean": "deletion", "black": "deletion_black", "blur": "deletion_blur"}
N_NAMED = 3
"""Methods that the sentence names at either end."""


@dataclass(frozen=True, repr=False)
class Findings(Answer):
    """What a study found; ``data`` is its JSON."""

    def to_html(self) -> str:
        from ..report.study import render_study

        return render_study(self.data)


def findings(
    rows: Sequence[Row],
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
    """Tables, ranking, differences, agreement between fills, and the sentence.

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
    names, how = [*methods, *controls], Resampling(n_draws, level, seed)
    tables = {}
    for label, metric in metrics.items():
        one = table(label, metric, rows, names, set(controls), how)
        if one is not None:
            tables[label] = one
    same = _same(rows, metrics, names)
    ranked = ranking(tables.values(), methods)
    return Findings(
        {
            "study": "faithfulness",
            "model": model,
            "n": max((t["n"] for t in tables.values()), default=0),
            "methods": list(methods),
            "controls": list(controls),
            "sentence": sentence(tables.values(), ranked, same),
            "ranking": ranked,
            "same": same,
            "metrics": list(tables.values()),
            "fills": _agreement(tables, methods),
            "settings": {"seed": seed, "n_draws": n_draws, "level": level, "class": "predicted"},
            "notes": list(notes),
            "failures": [f.to_json() for f in failures],
        }
    )


def _same(rows: Iterable[Row], metrics: Mapping[str, Metric], names: Sequence[str]) -> list[list[str]]:
    """Methods whose maps were the same on every picture where both were measured, in groups."""
    leaders: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        # A metric that explains again measures every method by itself, and so says nothing here.
        if "methods" not in metrics[row["metric"]].requires:
            leaders[row["method"]].add(row["same_as"])
    groups: dict[str, list[str]] = {}
    for name in names:
        led = leaders.get(name, {None})
        leader = next(iter(led)) if len(led) == 1 else None
        groups.setdefault(leader or name, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


@dataclass
class _Standing:
    """A method against the others and against the random map, on metrics of faithfulness."""

    method: str
    won: int = 0
    lost: int = 0
    compared: int = 0
    over_random: list[str] = field(default_factory=list)
    under_random: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)


def ranking(tables: Iterable[dict[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Methods by real differences won less those lost against other methods on metrics of faithfulness, best first.

    Pairs that share too few pictures are not counted; methods without any other pair come last. ``over_random`` and
    ``under_random`` are the metrics on which the difference to the random map is real.
    """
    standings = {name: _Standing(name) for name in methods}
    judges = [t for t in tables if t["family"] == "faithfulness"]
    pairs = [(t["metric"], d) for t in judges for d in t["differences"] if d["n"] >= N_FEWEST]
    for label, d in pairs:
        first = standings[d["a"]]
        if d["b"] == RANDOM:
            first.judged.append(label)
            if d["real"]:
                (first.over_random if d["better"] == d["a"] else first.under_random).append(label)
        if not d["control"]:
            for one in (first, standings[d["b"]]):
                one.compared += 1
                one.won += d["real"] and d["better"] == one.method
                one.lost += d["real"] and d["better"] != one.method
    ordered = sorted(standings.values(), key=lambda s: (not s.compared, (s.lost - s.won) / max(1, s.compared)))
    return [asdict(one) for one in ordered]


def _agreement(tables: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> dict[str, float] | None:
    """Kendall's τ between the rankings of the methods that deletion gives with each fill."""
    if len(methods) < 2:
        return None
    values = {
        fill: {r["method"]: r["value"] for r in tables[label]["rows"] if not r["control"]}
        for fill, label in FILLS.items()
        if label in tables
    }
    found = {}
    for a, b in itertools.combinations(values, 2):
        both = [n for n in methods if n in values[a] and n in values[b]]
        found[f"{a}, {b}"] = round(kendall_tau([values[a][n] for n in both], [values[b][n] for n in both]), 4)
    return found or None


def sentence(tables: Iterable[dict[str, Any]], ranked: Sequence[dict[str, Any]], same: Sequence[Sequence[str]]) -> str:
    """Which differences are real, in one sentence.

    Args:
        tables: one a metric.
        ranked: :func:`ranking`.
        same: groups of methods with the same maps, whose differences are not counted.
    """
    tables = list(tables)
    n = max((t["n"] for t in tables), default=0)
    if n < N_FEWEST:
        are = "picture is" if n == 1 else "pictures are"
        return f"{n} {are} too few to call any difference real; give at least {N_FEWEST}."
    together = [set(group) for group in same]
    pairs = [
        (t["metric"], d)
        for t in tables
        for d in t["differences"]
        if not d["control"] and d["n"] >= N_FEWEST and not any({d["a"], d["b"]} <= group for group in together)
    ]
    real = [(label, d) for label, d in pairs if d["real"]]
    if not pairs:
        first = "There are no two methods with different maps"
    elif not real:
        first = f"None of the {len(pairs)} differences between methods is real"
    elif len(ranked) > N_NAMED:
        first = f"{len(real)} of {len(pairs)} differences between methods are real"
    else:
        first = f"{len(real)} of {len(pairs)} differences between methods are real: {_named(real)}"
    return f"On {n} pictures: {first}; {_against_random(ranked, together)}."


def _named(real: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Winners and losers, metric by metric."""
    by_pair: dict[tuple[str, str], list[str]] = defaultdict(list)
    for label, d in real:
        loser = d["b"] if d["better"] == d["a"] else d["a"]
        by_pair[d["better"], loser].append(label)
    ordered = sorted(by_pair.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{a} is better than {b} on {', '.join(labels)}" for (a, b), labels in ordered)


def _against_random(ranked: Sequence[dict[str, Any]], same: Sequence[set[str]]) -> str:
    """How many metrics of faithfulness say that a method beats the random map: each, or the ends of a long list."""
    ranked = [e for e in ranked if e["judged"]]
    if not ranked:
        return "no metric of faithfulness was measured on enough pictures"
    if len(ranked) <= N_NAMED:
        said = [f"{e['method']} on {len(e['over_random'])} of {len(e['judged'])}" for e in ranked]
        return f"better than a random map is {', '.join(said)} metrics of faithfulness"
    # Of methods with the same maps the first stands for all.
    names = [e["method"] for e in ranked]
    distinct = [n for i, n in enumerate(names) if not any({n, other} <= group for group in same for other in names[:i])]
    every = [e["method"] for e in ranked if len(e["over_random"]) == len(e["judged"])]
    never = [e["method"] for e in ranked if not e["over_random"]]
    ends = (
        f"most differences on metrics of faithfulness are won by {', '.join(distinct[:N_NAMED])}, "
        f"most lost by {', '.join(distinct[: -N_NAMED - 1 : -1])}"
    )
    return (
        f"{ends}; better than a random map on every one of them: {', '.join(every) or 'none'}; "
        f"on none of them: {', '.join(never) or 'none'}"
    )
