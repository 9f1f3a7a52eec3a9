"""The pages of studies, built from their JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..clusters import grouped
from ..evaluation.document import small_copies
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
    Picture,
    Pictures,
    Section,
    Table,
    closing,
    pair,
    points,
)
from ..report.page import percent as percents

HEADINGS = {"image_to_text": "picture to text R@5", "text_to_image": "text to picture R@5"}
N_POINTS = 200
"""Largest number of points per curve."""


def parted(text: str) -> tuple[str, str]:
    """Split a text into its headline and the rest."""
    first, _, rest = text.rstrip(".").partition(". ")
    return f"{first}.", f"{rest}." if rest else ""


def between(interval: Sequence[float], form: str = ".3f") -> str:
    return " to ".join(f"{value:{form}}".replace("-", "−") for value in interval)


def of_difference(value: float, real: bool, text: str, interval: str = "") -> Cell:
    """Format a difference, coloured if it is real."""
    colour: Colour = "" if not real else "good" if value > 0 else "bad"
    return Cell(text, [interval] if interval else [], colour=colour)


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


def adaptation_page(data: dict[str, Any]) -> Document:
    run, before, finds = data.get("run"), data["before"], any("R@" in row["measure"] for row in data["measures"])
    said = (
        "Accuracy in per cent: how often the nearest value of the column is the value of the picture. By name: how "
        "often the nearest class name is the class that the encoder's last layer predicts."
    )
    if finds:
        said = (
            "All values are in per cent. R@5: how often the correct text or picture is among the first five. By "
            "name: zero-shot accuracy."
        )
        if run is not None and run["provenance"]["train"] == "heads" and run["provenance"].get("guard", False):
            said += (
                " The embeddings of the encoder's class names are fixed, so they cannot show what the encoder "
                "forgets. The measure “names read as new” encodes each class name as a new name. SeeWhy uses this "
                "measure to choose how much of the training to keep."
            )
    title = "What it gained and forgot" if before else "How often texts and pictures find each other"
    blocks: list[Block] = [Section(title, [_measures(data["measures"]), Note(said)])]
    if run is not None:
        p = run["provenance"]
        what = p["objective"] + (f", {p['train']}" if p["train"] != p["objective"] else "")
        told = (
            f"{what}, {p['n_steps']} steps of {p['batch_size']} pairs on {p['n_pictures']} pictures with "
            f"{p['n_texts']} texts."
        )
        blocks.append(Section("The training", [Note(told), *_curves(run["history"]), *_kept(run)]))
    shown = f"{'Texts' if finds else 'Values'}, drawn at random, and their nearest pictures"
    blocks.append(Section(shown, [*_examples(data["examples"], bool(before))]))
    counted = f"{data['n_pictures']} pictures with {data['n_texts']} texts"
    return _document("What the training gained and forgot", _headline(data["measures"]), data, blocks, counted)


def pretraining_page(data: dict[str, Any]) -> Document:
    said = (
        "Accuracy in per cent, on held-out pictures. By neighbours: a vote of the nearest training pictures. By a "
        "linear probe: logistic regression on the encoder's features of the training pictures."
    )
    blocks: list[Block] = []
    if data["measures"]:
        blocks.append(Section("What it gained and forgot", [_measures(data["measures"]), Note(said)]))
    p = data["run"]["provenance"]
    n_views = p["settings"]["n_views"]
    told = (
        f"{p['objective']}, {p['n_steps']} steps of {p['batch_size']} pictures, {n_views or 'each'} "
        f"view{'s' if n_views != 1 else ''} of each, on {p['n_pictures']} pictures; projection: {p['projection']}"
        f"{', kept' if p['keep_head'] else ''}."
    )
    blocks.append(Section("The training", [Note(told), *_curves(data["run"]["history"])]))
    classes = f", {len(data['classes'])} classes" if data["classes"] else ""
    counted = f"{data['n_pictures']} pictures trained on, {data['n_held_out']} held out{classes}"
    headline = (
        f"Trained on {data['n_pictures']} pictures. Its accuracy was not measured, because the pictures have no "
        "classes."
    )
    if data["measures"]:
        headline = _headline(data["measures"])
    return _document("What the training taught", headline, data, blocks, counted)


def _document(title: str, headline: str, data: Mapping[str, Any], blocks: Sequence[Block], counted: str) -> Document:
    before = data["before"]
    above = f"{data['encoder']['encoder']}{', beside ' + before['encoder'] if before else ''} · {counted}"
    real = (
        "A difference is real if its 95 % bootstrap interval over pictures excludes 0. By chance, this holds for 1 in "
        "20 comparisons of equal encoders."
    )
    return Document(title, headline, [*blocks, *closing(data, "Notes")], above, (real if before else "",))


def _measures(rows: Sequence[Mapping[str, Any]]) -> Table:
    if not any("difference" in row for row in rows):
        lines = [(row["measure"], points(row["after"]), pair(row["after_interval"]), row["n"]) for row in rows]
        return Table(("measure", "value", "interval", "pictures"), lines)
    told = []
    for row in rows:
        verdict: tuple[str, Colour] = ("gained", "good") if row["difference"] > 0 else ("forgotten", "bad")
        verdict = verdict if row["real"] else ("no real difference", "")
        change = Cell(points(row["difference"], True), [pair(row["difference_interval"], True)])
        both = points(row["before"]), points(row["after"])
        told.append((row["measure"], *both, change, Cell(verdict[0], colour=verdict[1]), row["n"]))
    return Table(("measure", "before", "after", "difference", "real?", "pictures"), told)


def _headline(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the main result in one sentence.

    >>> _headline([{"measure": "text to picture R@5", "after": 0.44, "before": 0.24, "difference": 0.2, "real": True}])
    'Texts find their picture among the first five in 44 of 100 cases; before, in 24.'
    >>> _headline([{"measure": "class by 20 neighbours", "after": 0.9, "before": 0.6, "real": False}])
    'Neighbours predict 90 of 100 held-out pictures correctly; before, 60: no real difference.'
    """
    row = next((r for r in rows if r["measure"] == "text to picture R@5"), rows[0])
    after, name = f"{100 * row['after']:.0f}", row["measure"]
    said, to = f"{name}: right for {after} of 100 pictures", "for "
    if name == "text to picture R@5":
        said, to = f"Texts find their picture among the first five in {after} of 100 cases", "in "
    elif name.startswith("class by "):
        said, to = f"Neighbours predict {after} of 100 held-out pictures correctly", ""
    if "before" not in row:
        return f"{said}."
    return f"{said}; before, {to}{100 * row['before']:.0f}{'' if row.get('real', True) else ': no real difference'}."


def _kept(run: Mapping[str, Any]) -> Iterator[Block]:
    p, first = run["provenance"], run["tried"][0]
    right = list(first["right"]) if "right" in first else [k for k in first if k not in ("keep", "named")]
    rows = []
    for one in run["tried"]:
        keep, values = one["keep"], one.get("right", one)
        chosen = "chosen" if p["keep_chosen"] else "as you set it"
        why = chosen if keep == p["keep"] else "before training" if keep == 0 else ""
        numbers = (*(values[name] for name in right), one["named"])
        rows.append((Cell(f"{keep:g}", [why] if why else []), *map(points, numbers)))
    columns = ("kept", *(HEADINGS.get(name, name) for name in right), run["tried_named"])
    which = "not those of the table above" if run["tried_apart"] else "those of the table above"
    yield Table(columns, rows, title="How much to keep")
    yield Note(f"On {p['n_chosen_on']} held-out pictures, {which}, in per cent.")


def _curves(history: Sequence[Mapping[str, float]]) -> Iterator[Block]:
    """Yield a chart for each term of the loss."""
    for name in history[0] if history else ():
        values = [step[name] for step in history]
        size = -(-len(values) // N_POINTS)
        parts = [values[i : i + size] for i in range(0, len(values), size)]
        line = [(float(i * size), sum(part) / len(part)) for i, part in enumerate(parts)]
        title = f"{name.replace('_', ' ')}: {line[0][1]:.3g} at the start, {line[-1][1]:.3g} at the end"
        yield Chart(title, [Curve(line)], across="steps", plain_x=True, plain_y=True, small=True)


def _examples(examples: Sequence[Mapping[str, Any]], compared: bool) -> Iterator[Block]:
    near = [name for e in examples for when in ("before", "after") if when in e for name in e[when]["nearest"]]
    views = small_copies(dict.fromkeys([*(e["picture"] for e in examples), *near]))
    for e in examples:
        yield Note(f"“{e['text']}”" + (f", {e['measure']}" if "measure" in e else ""))
        shown = [Picture(views.get(e["picture"]), e["picture"], ("its own",), kind="known")]
        for when in ("before", "after"):
            if when in e:
                caption = f"{when if compared else 'nearest'}, its own picture is number {e[when]['place']}"
                for i, name in enumerate(e[when]["nearest"]):
                    own = name in e.get("own", [e["picture"]])
                    shown.append(Picture(views.get(name), name, ("" if i else caption,), kind="known" if own else ""))
        yield Pictures(shown, "row")
