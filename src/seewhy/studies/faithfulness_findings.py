"""Tables, ranking, summary and page of a faithfulness study."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..clusters import grouped
from ..evaluation.figures import N_FEWEST
from ..metrics import Metric
from ..report.blocks import Block, Cell, Colour, Document, Facts, Fold, Note, Section, Table, closing
from ..report.page import method_name
from .bootstrap import Paired, paired
from .pages import between, parted
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


FAMILIES = {
    "faithfulness": "Do the pixels that the map marks matter for the prediction?",
    "localisation": "Does the map fall on the object?",
    "randomisation": "Does the map depend on what the model learned?",
    "robustness": "Does the map stay the same under small changes of the picture?",
    "complexity": "Is the map compact?",
}
"""The question of each family of metrics, in the order of the page."""


def faithfulness_page(study: dict[str, Any]) -> Document:
    level, order = study["settings"]["level"], list(FAMILIES)
    tables = sorted(study["metrics"], key=lambda t: order.index(t["family"]))
    standing = {line["method"]: line for line in study["ranking"]}
    names = [*standing, *study["controls"]]
    won = {name: f"{one['won']} · {one['lost']}" for name, one in standing.items()}
    rows = [[method_name(n), won.get(n, "control"), *(_overview(n, table) for table in tables)] for n in names]
    columns = ["method", "won · lost", *(f"{_plain(t)} {'↑' if t['higher_is_better'] else '↓'}" for t in tables)]
    blocks: list[Block] = [
        Note(
            "Methods are ordered by real differences won minus lost, against other methods on metrics of "
            "faithfulness. Controls, which ignore the class, are below. Green: better than the random map. Red: worse. "
            "Bold: the best method. A small number is the number of pictures, if the method was measured on fewer "
            "pictures than others."
        ),
        Table(columns, rows, "matrix", idle=[name in study["controls"] for name in names]),
        *(Note(f"On this model, {', '.join(map(method_name, group))} make the same maps.") for group in study["same"]),
    ]
    sections = [Section("Every method on every metric", blocks)]
    for family, question in FAMILIES.items():
        own = [_metric(table, study) for table in tables if table["family"] == family]
        sections += [Section(question, own)] if own else []
    if study["fills"]:
        told = Note(
            "Kendall's τ compares the orders of the methods by deletion with two fills: 1 for the same order, 0 for "
            "unrelated orders, −1 for the reverse order. If τ is low, do not rely on a single order."
        )
        fills = Table(("fills", "τ"), list(study["fills"].items()))
        sections.append(Section("Does the order of methods depend on the fill?", [told, fills]))
    first, rest = parted(study["sentence"])
    real = (
        f"A difference is real if its paired bootstrap interval at {level * 100:g} % excludes 0. By chance, this holds "
        f"for 1 in {1 / (1 - level):.0f} comparisons of equal methods."
    )
    end = closing(study, "Left out")
    above = "Study of faithfulness, for the predicted class of each picture"
    return Document("Which explanations can you believe?", first, [*sections, *end], above, (rest, real))


def _plain(table: Mapping[str, Any]) -> str:
    return str(table["metric"]).replace("_", " ")


def _overview(name: str, table: Mapping[str, Any]) -> Any:
    row = next((r for r in table["rows"] if r["method"] == name), None)
    if row is None:
        return None
    # Values on different pictures cannot be compared.
    values = [r["value"] for r in table["rows"] if not r["control"] and r["n"] == table["n"]]
    best = (max if table["higher_is_better"] else min)(values, default=None)
    judged = next((d for d in table["differences"] if d["a"] == name and d["b"] == "random"), None)
    colour: Colour = "" if judged is None or not judged["real"] else "good" if judged["better"] == name else "bad"
    whole = row["n"] == table["n"]
    low, high = row["interval"]
    title = f"{name}, {table['metric']}: {row['value']:.4g}, from {low:.4g} to {high:.4g}, on {row['n']} pictures"
    is_best = not row["control"] and whole and row["value"] == best
    return Cell(short(row["value"]), () if whole else (str(row["n"]),), colour, strong=is_best, title=title)


def _metric(table: Mapping[str, Any], study: Mapping[str, Any]) -> Fold:
    sign = -1 if table["higher_is_better"] else 1
    rows = sorted(table["rows"], key=lambda r: (r["control"], r["n"] < table["n"], sign * r["value"]))
    against = {d["a"]: d for d in table["differences"] if d["b"] == "random"}
    lines = []
    for row in rows:
        name, d = row["method"], against.get(row["method"])
        verdict = (
            "" if d is None else "no real difference" if not d["real"] else "better" if d["better"] == name else "worse"
        )
        mean = f", mean map {row['mean_map']:.2f}" if "mean_map" in row else ""
        few = f" on {row['n']}" if row["n"] != table["n"] else ""
        span = f"{short(row['interval'][0])} to {short(row['interval'][1])}"
        lines.append((f"{method_name(name)}{few}", f"{short(row['value'])}{mean}", span, verdict))
    differences = [
        (
            f"{method_name(d['a'])} − {method_name(d['b'])}", f"{d['difference']:+.3g}", between(d["interval"], "+.3g"),
            d["n"], method_name(d["better"]) if d["real"] else "no real difference",
        )
        for d in table["differences"] if not d["control"]
    ]  # fmt: skip
    pairs = Table(("pair", "difference", "interval", "pictures", "better"), differences)
    good = "high" if table["higher_is_better"] else "low"
    title = f"{_plain(table)}: {good} is good, {table['n']} pictures, best {method_name(rows[0]['method'])}"
    shown = Table(("method", "value", "interval", "than a random map"), lines, idle=[row["control"] for row in rows])
    more = [Fold("Differences between methods", [pairs])] if differences else []
    is_first = study["metrics"][0]["metric"] == table["metric"]
    return Fold(title, [shown, *more, Fold("Settings", [Facts(table["settings"])])], is_first)


def short(value: float) -> str:
    """Format a number with three significant digits and a typographic minus sign.

    >>> short(0.12345), short(-0.5), short(87.654), short(8050.0), short(0.00001)
    ('0.123', '−0.500', '87.7', '8050', '0')
    """
    size = abs(value)
    text = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return "0" if text in ("0.000", "-0.000") else text.replace("-", "−")
