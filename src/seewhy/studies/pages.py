"""The pages of studies, built from their JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..clusters import grouped
from ..report.blocks import (
    Block,
    Cell,
    Chart,
    Colour,
    Curve,
    Document,
    Dot,
    Facts,
    Fold,
    Note,
    Section,
    Table,
    closing,
    pair,
    points,
)
from ..report.page import method_name
from ..report.page import percent as percents

FAMILIES = {
    "faithfulness": "Do the pixels that the map marks matter for the prediction?",
    "localisation": "Does the map fall on the object?",
    "randomisation": "Does the map depend on what the model learned?",
    "robustness": "Does the map stay the same under small changes of the picture?",
    "complexity": "Is the map compact?",
}
"""The question of each family of metrics, in the order of the page."""


def parted(text: str) -> tuple[str, str]:
    """Split a text into its headline and the rest."""
    first, _, rest = text.rstrip(".").partition(". ")
    return f"{first}.", f"{rest}." if rest else ""


def short(value: float) -> str:
    """Format a number with three significant digits and a typographic minus sign.

    >>> short(0.12345), short(-0.5), short(87.654), short(8050.0), short(0.00001)
    ('0.123', '−0.500', '87.7', '8050', '0')
    """
    size = abs(value)
    text = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return "0" if text in ("0.000", "-0.000") else text.replace("-", "−")


def between(interval: Sequence[float], form: str = ".3f") -> str:
    return " to ".join(f"{value:{form}}".replace("-", "−") for value in interval)


def of_difference(value: float, real: bool, text: str, interval: str = "") -> Cell:
    """Format a difference, coloured if it is real."""
    colour: Colour = "" if not real else "good" if value > 0 else "bad"
    return Cell(text, [interval] if interval else [], colour=colour)


def faithfulness(study: dict[str, Any]) -> Document:
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


def scaling(study: dict[str, Any]) -> Document:
    first, rest = parted(study["sentence"])
    how = study["settings"]
    sections = [Section(arm["name"], [*_arm(arm, study["target"])]) for arm in study["arms"]]
    tested = (
        f"All classifiers are tested on the same {study['n_test']:,} held-out pictures. Intervals include the "
        "variation "
        f"over {how['n_seeds']} {how['draws']} subsets of each size, over test pictures, and over forms of the curve."
    )
    above = f"Learning curve of {study['classifier']}"
    return Document("How many more pictures?", first, [*sections, *closing(study)], above, (rest, tested))


def _arm(arm: Mapping[str, Any], target: float | None) -> Iterator[Block]:
    band, measured, slope, floor = arm["band"], arm["points"], arm["slope"], arm["floor"]
    dots = [Dot(p["n"], value, 2.5, colour="idle") for p in measured for value in p["by_seed"]]
    dots += [Dot(p["n"], p["accuracy"], 3.5, f"{p['n']:,} pictures: {points(p['accuracy'])} %") for p in measured]
    yield Chart(
        arm["name"], [Curve([(row["n"], row["accuracy"]) for row in band], colour="good")],
        [(row["n"], *row["interval_90"]) for row in band], dots, "pictures trained on", log=True,
        levels=[] if target is None else [(target, "bad")], edges=[measured[-1]["n"]],
        alt="Accuracy by number of pictures: " + "; ".join(f"{p['n']:,}: {percents(p['accuracy'])}" for p in measured),
    )  # fmt: skip
    wanted = "" if target is None else f" The horizontal line is the target, {percents(target)}."
    yield Note(
        "Each light dot is a subset, and each dark dot is the mean of its size. The band is the 90 % interval. Left of "
        f"the dashed line, accuracy was measured ({measured[0]['n']:,} to {measured[-1]['n']:,} pictures). Right of "
        f"it, accuracy is predicted.{wanted}"
    )
    yield Note(
        f"Doubling the number of pictures changed accuracy by {points(slope['value'], True)} points (95 %: "
        f"{pair(slope['interval_95'])}). The error for infinitely many pictures is {points(floor['value'])} % "
        f"(90 %: {pair(floor['interval_90'])})."
    )
    rows = [
        (p["n"], f"{points(p['accuracy'])} %", pair(p["interval_90"]), pair(p["interval_95"]), kind)
        for kind, found in (("measured", measured), ("predicted", arm["predictions"]))
        for p in found
    ]
    yield Table(("pictures", "accuracy", "90 % interval", "95 % interval", ""), rows)
    yield Note("Forms with a smaller error at held-out sizes have a larger share of the resampled curves.")
    forms = [
        (
            f["name"], f["formula"], None if f["held_out_error"] is None else f"{f['held_out_error']:.3f}",
            percents(f["share"]), f"{f['n_failed']} of {f['n_fits']}",
        )
        for f in arm["forms"]
    ]  # fmt: skip
    yield Table(("form", "formula", "relative error at held-out sizes", "share of curves", "failed fits"), forms)


def comparison(study: dict[str, Any]) -> Document:
    """Build the page of the transfer study or of the base-to-new study."""
    who = "method" if study["study"] == "base-to-new" else "encoder"
    names = study["methods"] if who == "method" else [e["name"] for e in study["encoders"]]
    families = grouped((table["family"], table) for table in study["measures"])
    standing = [(s[who], s["won"], s["lost"], s["compared"]) for s in study["standings"]]
    blocks: list[Block] = [
        Section("Real differences won and lost", [Table((who, "won", "lost", "compared"), standing)])
    ]
    blocks += [Section(family, [*_family(tables, names)]) for family, tables in families.items()]
    alpha, n, how = 1 - study["settings"]["level"], study["settings"]["n_compared"], study["settings"]
    said = (
        f"A difference is real if its p value, corrected for all {n} comparisons on this page, is below "
        f"{alpha:.2g}. Intervals include the variation over test pictures and draws, and are not corrected."
    )
    if who == "method":
        classes, encoder = study["classes"], study["encoder"]
        asked = (
            f"{len(classes['learnt'])} classes are learnt from a few pictures each, drawn {how['n_seeds']} times. "
            f"The other {len(classes['new'])} have only names. All methods are tested on the same {study['n_test']:,} "
            f"pictures: among the learnt classes, among the new classes, and among all classes. {said}"
        )
        facts = {encoder["name"]: encoder["fingerprint"], **{k: ", ".join(v) for k, v in classes.items()}}
        title, above = "Learnt and new classes", f"Study of learnt and new classes: {encoder['name']}"
        origin = "The encoder and the classes"
    else:
        asked = (
            f"Every encoder has the same {study['n_learn']:,} training pictures of {study['n_classes']} classes and "
            f"{study['n_test']:,} test pictures of {study['n_groups']:,} different objects. {said}"
        )
        facts = {e["name"]: f"{e['fingerprint']}, {e['width']} numbers per picture" for e in study["encoders"]}
        title, above, origin = "Which encoder is better?", f"Study of transfer: {how['classifier']}", "The encoders"
    blocks += [*closing(study), Section(origin, [Facts(facts)], kind="provenance")]
    headline, rest = parted(study["sentence"])
    return Document(title, headline, blocks, above, (rest, asked))


def _family(tables: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[Block]:
    rows = []
    for table in tables:
        values = [Cell(points(r["value"]), [pair(r["interval"])]) for r in table["rows"]]
        real = [(d["better"], d["b"] if d["better"] == d["a"] else d["a"]) for d in table["differences"] if d["real"]]
        rows.append((table["measure"], *values, table["n"], "; ".join(f"{a} > {b}" for a, b in real) or "–"))
    yield Table(("measure", *names, "pictures", "better"), rows)
    differences = [
        (
            t["measure"], f"{d['a']} − {d['b']}",
            of_difference(d["difference"], d["real"], points(d["difference"], True), pair(d["interval"], True)),
            f"{d['p']:.2g}", f"{d['p_corrected']:.2g}",
        )
        for t in tables for d in t["differences"]
    ]  # fmt: skip
    if differences:
        columns = ("measure", "compared", "difference", "p", "p, corrected")
        yield Fold("Every difference", [Table(columns, differences)])


def claims(study: dict[str, Any]) -> Document:
    """Build the page of the claims study."""
    colours: dict[str, Colour] = {"shown": "good", "not shown": "bad"}
    rows = [
        (
            c["claim"], Cell(c["verdict"], colour=colours.get(c["verdict"], ""), strong=True),
            Cell(points(c["difference"], True), [pair(c["interval"], True)]),
            c["figure"] or "not verified", c["paper"],
        )
        for c in study["claims"]
    ]  # fmt: skip
    head = ("claim", "verdict", "difference here, in points", "figure in the paper", "paper")
    columns = ("name", "figures here", "pictures", "paper's effect, in points")
    told = [(c["name"], c["measured"], c["n"], points(c["effect"])) for c in study["claims"]]
    left = {row["claim"]: row["reason"] for row in study["left_out"]}
    facts = {
        study["encoder"]["name"]: study["encoder"]["fingerprint"], "command": study["command"] or "from Python",
        "version": f"SeeWhy {study['version']}", **study["settings"],
    }  # fmt: skip
    return Document(
        "Which claims of papers hold here?", study["sentence"],
        [
            Section("Claims", [Table(head, rows)]),
            Section("What was measured", [Table(columns, told)]),
            *([Section("Not measured", [Facts(left)])] if left else []),
            *closing(study), Section("The encoder and the run", [Facts(facts)], kind="provenance"),
        ],
        f"Study of claims: {study['n_test']:,} test pictures of {study['n_classes']:,} classes",
        [
            "SeeWhy measures each claim as a difference on the same test pictures. A claim is shown if the whole "
            "interval of the difference is above 0. A claim is not shown if the whole interval is below the paper's "
            "effect, or below 0 if the paper gives no effect. Otherwise the study is too small to tell. Intervals are "
            "not corrected for the number of claims."
        ],
    )  # fmt: skip
