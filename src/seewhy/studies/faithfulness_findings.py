"""Tables, ranking and summary of a faithfulness study."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..clusters import grouped
from ..evaluation.figures import N_FEWEST
from ..metrics import Metric
from .bootstrap import Paired, paired
from .study import Row

RANDOM = "random"
FILLS = {"mean": "deletion", "black": "deletion_black", "blur": "deletion_blur"}
N_NAMED = 3
"""Number of methods named at each end of the ranking."""


def findings(
    rows: Sequence[Row], metrics: Mapping[str, Metric], methods: Sequence[str], controls: Sequence[str], **how: Any
) -> dict[str, Any]:
    """Return the tables, the ranking, the differences, and the summary."""
    names, tables = [*methods, *controls], {}
    for label, metric in metrics.items():
        found = [row for row in rows if row["metric"] == label]
        if any(row["method"] in names for row in found):
            tables[label] = table(label, metric, found, names, controls, **how)
    same = _same(rows, metrics, names)
    ranked = ranking(tables.values(), methods)
    return {
        "study": "faithfulness", "n": max((t["n"] for t in tables.values()), default=0), "methods": list(methods),
        "controls": list(controls), "sentence": sentence(tables.values(), ranked, same), "ranking": ranked,
        "same": same, "metrics": list(tables.values()), "fills": _agreement(tables, methods),
        "settings": {**how, "class": "predicted"},
    }  # fmt: skip


class _Sets:
    """Bootstrap resamples of each set of pictures that methods share."""

    def __init__(self, metric: Metric, found: Mapping[str, dict[str, Row]], how: Mapping[str, Any]) -> None:
        self.metric, self.found, self.how = metric, found, how
        self._drawn: dict[frozenset[str], tuple[list[str], Paired]] = {}

    def __call__(self, *names: str) -> tuple[list[int], Paired | None, int]:
        """Return the methods' columns in the resamples, the resamples, and the number of shared pictures."""
        shared = frozenset.intersection(*(frozenset(self.found[n]) for n in names))
        if not shared:
            return [], None, 0
        if shared not in self._drawn:
            able = [n for n, rows in self.found.items() if shared <= rows.keys()]
            digests = [d for d in self.found[able[0]] if d in shared]
            sums = torch.tensor([[self.found[n][d]["sums"] for n in able] for d in digests], dtype=torch.double)
            self._drawn[shared] = able, paired(sums, self.metric.combine, **self.how)
        able, drawn = self._drawn[shared]
        return [able.index(n) for n in names], drawn, len(shared)


def table(
    label: str, metric: Metric, rows: Sequence[Row], names: Sequence[str], controls: Sequence[str], **how: Any
) -> dict[str, Any]:
    """Return a metric's rows and the differences between methods, each on the pictures that both methods explain."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found[row["method"]][row["digest"]] = row
    sets, shown = _Sets(metric, found, how), [n for n in names if n in found]
    lines = [_line(name, name in controls, found[name], sets) for name in shown]
    differences = []
    for a, b in itertools.combinations(shown, 2):
        places, drawn, n = sets(a, b)
        if a in controls or drawn is None:
            continue
        difference, interval, apart = drawn.difference(*places)
        real, better = apart and n >= N_FEWEST, a if (difference > 0) is metric.higher_is_better else b
        differences.append(
            {
                "a": a, "b": b, "control": b in controls, "n": n, "difference": difference,
                "interval": list(interval), "real": real, "better": better if real else None,
            }
        )  # fmt: skip
    first = next(iter(found[shown[0]].values()))
    settings = {k: v for k, v in first["settings"].items() if k != "target"}
    n, higher = max(line["n"] for line in lines), metric.higher_is_better
    about = {"metric": label, "family": metric.family, "higher_is_better": higher, "n": n}
    return {**about, "rows": lines, "differences": differences, "settings": settings}


def _line(name: str, is_control: bool, rows: Mapping[str, Row], sets: _Sets) -> dict[str, Any]:
    (i,), drawn, n = sets(name)
    assert drawn is not None
    value, interval = float(drawn.values[i]), list(drawn.interval(i))
    line = {"method": name, "control": is_control, "n": n, "value": value, "interval": interval}
    if all("mean_map" in row["parts"] for row in rows.values()):
        line["mean_map"] = sum(row["parts"]["mean_map"] for row in rows.values()) / n
    return line


def _same(rows: Iterable[Row], metrics: Mapping[str, Metric], names: Sequence[str]) -> list[list[str]]:
    """Return groups of methods with the same maps on all common pictures."""
    leaders: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        # Metrics that compute maps again measure every method separately.
        if "methods" not in metrics[row["metric"]].requires:
            leaders[row["method"]].add(row["same_as"])
    groups: dict[str, list[str]] = {}
    for name in names:
        led = leaders.get(name, {None})
        leader = next(iter(led)) if len(led) == 1 else None
        groups.setdefault(leader or name, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def ranking(tables: Iterable[dict[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Rank methods by the number of real differences won minus lost, on faithfulness metrics.

    ``over_random`` and ``under_random`` list the metrics on which a method is significantly better or worse than a
    random map.
    """
    judges = [t for t in tables if t["family"] == "faithfulness"]
    pairs = [(t["metric"], d) for t in judges for d in t["differences"] if d["n"] >= N_FEWEST]
    rows = []
    for name in methods:
        own = [d for _, d in pairs if not d["control"] and name in (d["a"], d["b"])]
        beside = [(label, d) for label, d in pairs if (d["a"], d["b"]) == (name, RANDOM)]
        won = sum(d["better"] == name for d in own)
        rows.append(
            {
                "method": name, "won": won, "lost": sum(d["real"] for d in own) - won, "compared": len(own),
                "over_random": [label for label, d in beside if d["real"] and d["better"] == name],
                "under_random": [label for label, d in beside if d["real"] and d["better"] != name],
                "judged": [label for label, _ in beside],
            }
        )  # fmt: skip
    return sorted(rows, key=lambda s: (not s["compared"], (s["lost"] - s["won"]) / max(1, s["compared"])))


def _agreement(tables: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> dict[str, float] | None:
    """Return Kendall's τ between the rankings by deletion with different fills."""
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


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Kendall's τ-b of two sequences, 0 if one is constant."""
    from scipy.stats import kendalltau

    flat = len({*a}) < 2 or len({*b}) < 2
    return 0.0 if flat else float(kendalltau(a, b)[0])


def sentence(tables: Iterable[dict[str, Any]], ranked: Sequence[dict[str, Any]], same: Sequence[Sequence[str]]) -> str:
    """Return a summary of the significant differences."""
    tables = list(tables)
    n = max((t["n"] for t in tables), default=0)
    if n < N_FEWEST:
        are = "picture is" if n == 1 else "pictures are"
        return f"{n} {are} too few to test differences. Give at least {N_FEWEST} pictures."
    together = [set(group) for group in same]
    pairs = [
        (t["metric"], d)
        for t in tables
        for d in t["differences"]
        if not d["control"] and d["n"] >= N_FEWEST and not any({d["a"], d["b"]} <= group for group in together)
    ]
    real = [(label, d) for label, d in pairs if d["real"]]
    if not pairs:
        first = "no two methods have different maps"
    elif not real:
        first = f"none of {len(pairs)} differences between methods is real"
    else:
        first = f"{len(real)} of {len(pairs)} differences between methods are real"
    named = _named(real) if real and len(ranked) <= N_NAMED else ""
    return f"{named}On {n} pictures, {first}. {_against_random(ranked, together)}."


def _named(real: Sequence[tuple[str, dict[str, Any]]]) -> str:
    by_pair = grouped(((d["better"], d["b"] if d["better"] == d["a"] else d["a"]), label) for label, d in real)
    ordered = sorted(by_pair.items(), key=lambda item: -len(item[1]))
    return "".join(f"{a} is better than {b} on {', '.join(labels)}. " for (a, b), labels in ordered)


def _against_random(ranked: Sequence[dict[str, Any]], same: Sequence[set[str]]) -> str:
    """Return a sentence on the number of metrics by which a method is better than a random map."""
    ranked = [e for e in ranked if e["judged"]]
    if not ranked:
        return "Too few pictures were measured to compare methods with a random map"
    if len(ranked) <= N_NAMED:
        said = [f"{e['method']} on {len(e['over_random'])} of {len(e['judged'])}" for e in ranked]
        return f"Metrics of faithfulness on which a method beats a random map: {', '.join(said)}"
    # Only the first of several methods with the same maps is named.
    names = [e["method"] for e in ranked]
    distinct = [n for i, n in enumerate(names) if not any({n, other} <= group for group in same for other in names[:i])]
    every = [e["method"] for e in ranked if len(e["over_random"]) == len(e["judged"])]
    never = [e["method"] for e in ranked if not e["over_random"]]
    return (
        f"On metrics of faithfulness, {', '.join(distinct[:N_NAMED])} win most comparisons, and "
        f"{', '.join(distinct[: -N_NAMED - 1 : -1])} lose most. Better than a random map on all of these metrics: "
        f"{', '.join(every) or 'none'}. Better on none of them: {', '.join(never) or 'none'}"
    )
