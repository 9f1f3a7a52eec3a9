"""The page of an evaluation, as report blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..metrics.calibration import wilson
from ..pictures.images import pixels_of
from ..report.blocks import (
    Bar,
    Bars,
    Block,
    Cell,
    Chart,
    Colour,
    Columns,
    Curve,
    Def,
    Document,
    Dot,
    Figure,
    Figures,
    Line,
    Note,
    Picture,
    Section,
    Table,
    Text,
    closing,
)
from ..report.page import figure, percent
from ..types import Transform
from .figures import say

N_LARGEST_MATRIX = 30
N_CONFUSIONS = 12
N_EXAMPLES = 4
N_BIN = 10
"""Minimum number of pictures of a point in the chart of calibration, if there are so many."""
CURES = {
    "faithfulness": "Where it looked: measure it with --faithfulness.",
    "like": "What it looks like: measure it with --faithfulness, after a fit on your pictures.",
    "words": "In words: the classifier has no descriptions; give some with --descriptions.",
}
"""What to do for each kind of evidence that was not measured."""
SIDE = 88
SMALL = Transform((SIDE, SIDE), SIDE, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def small_copies(pictures: Iterable[str]) -> dict[str, np.ndarray]:
    """Return thumbnails ``(h, w, 3)`` of the readable pictures, by name."""
    return {name: pixels for name in pictures if (pixels := pixels_of(name, SMALL)) is not None}


def shown_examples(data: Mapping[str, Any]) -> list[str]:
    """Return the wrongly predicted pictures that the page shows."""
    return [name for row in data["confusions"][:N_CONFUSIONS] for name in row["examples"][:N_EXAMPLES]]


def document_of(data: Mapping[str, Any], copies: Mapping[str, np.ndarray], cards: Mapping[str, str]) -> Document:
    """Build the page of an evaluation."""
    fitted_on, n = data["fitted_on"], data["n"]
    known = say(fitted_on, (data["expected"] or {}).get("held_out_accuracy"))
    above = f"Evaluation on {n} {'' if known else 'held-out '}{'picture' if n == 1 else 'pictures'}"
    both = " to ".join(map(percent, data["accuracy_interval"]))
    below: list[Text] = [Line("The 95 % interval is ", Def("accuracy", both), ".")]
    if known:
        below.append(f"{known}.")
    evidence = [blocks for part in (_where, _like, _words) if (blocks := [*part(data)])]
    missing = " ".join(cure for key, cure in CURES.items() if data[key] is None)
    sections = [
        Section("Which classes does it confuse?", [*confusions_of(data, copies, cards)]),
        Section("Class by class, lowest F1 first", [_classes(data)]),
        Section("When should you not trust it?", [*_trust(data["trust"])]),
        Section("Is it right as often as its probabilities say?", [*_calibration(data)]),
        *([Section("Can you believe its explanations?", [Columns(evidence)])] if evidence else []),
        *([Section("Not measured", [Note(missing)])] if missing else []),
        *closing({**data, "notes": ()}),
    ]
    headline = f"{percent(data['accuracy'])} of {n} {'picture is' if n == 1 else 'pictures are'} predicted correctly."
    return Document("Evaluation", headline, sections, above, below)


def _pair(term: str, name: str, value: float, beside: str, other: float | None, how: Any = percent) -> list[Bar]:
    bars = [Bar(name, value, Def(term, how(value)), colour="good")]
    return bars if other is None else [*bars, Bar(beside, other, Def(term, how(other)))]


def _where(data: Mapping[str, Any]) -> Iterator[Block]:
    found = data["faithfulness"]
    if found is not None and found["deletion"] is not None:
        names = {"deletion": "Deletion, low is good", "insertion": "Insertion, high is good"}
        pairs = [_pair(k, name, found[k], "random map", found[f"{k}_random"], figure) for k, name in names.items()]
        yield Bars([bar for two in pairs for bar in two], title="Where it looked")
        zero = ""
        if n := found["n_zero"]:
            zero = f" In {n} of these pictures, no part is evidence for the class, so there is no map."
        than = Def("random-map", "Against a random map:")
        yield Note(Line(than, f" {found['than_random']['sentence']}{zero}"))
    if outside := (found or {}).get("outside"):
        where = Def("outside", "Heat on the background:")
        yield Note(Line(where, f" {outside['sentence']} Masks: {outside['masks']}."))


def _like(data: Mapping[str, Any]) -> Iterator[Block]:
    if (like := data["like"]) is None:
        return
    bars = _pair("held-out", "Similar pictures of the class", like["held_out_precision"], "by chance", like["chance"])
    yield Bars(bars, title="What it looks like")


def _words(data: Mapping[str, Any]) -> Iterator[Block]:
    if (words := data["words"]) is None:
        return
    bars = _pair("words-accuracy", "Descriptions alone", words["accuracy"], "names alone", words["name_only"])
    bars.append(Bar("random words", words["random_words"], Def("words-accuracy", percent(words["random_words"]))))
    yield Bars(bars, title="In words")


def _trust(trust: Mapping[str, Any]) -> Iterator[Block]:
    rows = trust["risk_coverage"]
    area, chance = figure(trust["aurc"]), figure(trust["aurc_chance"])
    top = max((row["risk"] for row in rows), default=0.0) or 1.0
    chart = Chart(
        "Risk against coverage", [Curve([(row["coverage"], row["risk"]) for row in rows])],
        across="share of decisions kept, most certain first", upwards="share wrong",
        x_range=(0.0, 1.0), y_range=(0.0, top),
        alt=f"Risk against coverage: {area} under the curve, {chance} by chance.",
    )  # fmt: skip
    by = "" if trust["by"] == "held-out pictures" else ", measured by its own probability"
    promise = Note(
        Line(
            Def("set", percent(trust["coverage"])),
            f" of decisions include the true class; the promised share is {percent(trust['level'])}{by}. A decision "
            f"names {trust['set_size']:.1f} classes on average.",
        ),
        "said",
    )
    figures = []
    if trust["sure_right"] is not None:
        figures.append(
            Figure("sure", "Called sure", f"{trust['n_sure']} pictures, {percent(trust['sure_right'])} right")
        )
    if trust["auroc"] is not None:
        figures.append(Figure("unknown", "Separates right from wrong decisions", f"{figure(trust['auroc'])} of 1"))
        figures.append(Figure("", "by its own probability", f"{figure(trust['auroc_probability'])} of 1"))
    figures.append(Figure("aurc", "Area under the curve (0 is best)", f"{trust['aurc']:.3f}"))
    unseen, unknown = trust["unseen"] or {}, trust["unknown"] or {}
    if unseen.get("near_found") is not None:
        low, high = map(percent, unseen["near_interval"])
        noticed = f"{percent(unseen['near_found'])} ({low} to {high})"
        figures.append(Figure("unknown", "Pictures of classes left out of the fit, called unknown", noticed))
        figures.append(Figure("", "called sure", f"{percent(unseen['near_sure'])} of {unseen['n_near']}"))
    if unknown:
        figures.append(
            Figure(
                "unknown",
                f"Separates known pictures from {unknown['n']} pictures of no class",
                f"{figure(unknown['auroc'])} of 1",
            )
        )
        if unknown["sure"] is not None:
            both = f"{percent(unknown['found'])}, {percent(unknown['sure'])}"
            figures.append(Figure("", "of these called unknown, called sure", both))
    yield Columns([[chart], [promise, Figures(figures)]])


def pooled_bins(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbouring bins until each has ``N_BIN`` pictures, with 95 % Wilson intervals of the accuracy.

    >>> [(b["n"], round(b["accuracy"], 2)) for b in pooled_bins(
    ...     [{"n": 6, "confidence": 0.5, "accuracy": 0.5}, {"n": 6, "confidence": 0.7, "accuracy": 1.0}])]
    [(12, 0.75)]
    """
    groups: list[list[Mapping[str, Any]]] = []
    for row in (row for row in rows if row["n"]):
        if groups and sum(one["n"] for one in groups[-1]) < N_BIN:
            groups[-1].append(row)
        else:
            groups.append([row])
    if len(groups) > 1 and sum(one["n"] for one in groups[-1]) < N_BIN:
        groups[-2:] = [groups[-2] + groups[-1]]
    bins = []
    for group in groups:
        n = sum(one["n"] for one in group)
        mean = {key: sum(one[key] * one["n"] for one in group) / n for key in ("confidence", "accuracy")}
        bins.append({**mean, "n": n, "interval": wilson(round(mean["accuracy"] * n) / n, n, 1.959964)})
    return bins


def _calibration(data: Mapping[str, Any]) -> Iterator[Block]:
    bins = pooled_bins(data["reliability"])
    text = (
        " is the mean gap between probability and accuracy. On the dotted line the two are equal; below it, the "
        "probability is too high. Larger dots have more pictures; lines are 95 % intervals."
    )
    gap = Note(Line(Def("calibration", f"{data['calibration_error'] * 100:.1f} %"), text), "said")
    most = max(row["n"] for row in bins)
    points = [(row["confidence"], row["accuracy"]) for row in bins]
    lines = [Curve([(row["confidence"], end) for end in row["interval"]], colour="ember") for row in bins]
    told = " ".join(
        f"At a probability of {percent(row['confidence'])}, {percent(row['accuracy'])} of {row['n']} are right."
        for row in bins
    )
    chart = Chart(
        "Reliability", [*lines, Curve([(0.0, 0.0), (1.0, 1.0)], colour="idle", dashed=True)],
        dots=[Dot(*p, 3 + 7 * (row["n"] / most) ** 0.5, colour="ember") for p, row in zip(points, bins, strict=True)],
        across="probability of the predicted class", upwards="share right", x_range=(0.0, 1.0), y_range=(0.0, 1.0),
        alt=f"Reliability: how often the classifier is right, by its probability. {told}",
    )  # fmt: skip
    yield Columns([[chart], [gap]])


def confusions_of(
    data: Mapping[str, Any], copies: Mapping[str, np.ndarray], cards: Mapping[str, str]
) -> Iterator[Block]:
    matrix, rows = data["confusion_matrix"], data["confusions"]
    labels = matrix["labels"]
    if len(labels) > N_LARGEST_MATRIX:
        yield Note(f"These are the most frequent confusions; the full table of {len(labels)} classes is in the JSON.")
    else:
        yield Note("Rows: the true class. Columns: the predicted class.")
        lines: list[list[Any]] = []
        for i, (label, counts) in enumerate(zip(labels, matrix["counts"], strict=True)):
            cells = []  # each tinted by its part of the row
            for column, n in enumerate(counts):
                title, tint = f"{label} predicted as {labels[column]}: {n}", 0.08 + 0.42 * n / max(1, sum(counts))
                colour: Colour = "good" if column == i else "bad"
                cells.append(Cell(str(n), (), colour, tint, title=title) if n else Cell("·"))
            lines.append([label, *cells])
        yield Table(("", *labels), lines, "matrix")
    if not rows:
        yield Note("It confused no classes.")
        return
    if cards:
        yield Note("Click a picture to open its card.")
    table = []
    for row in rows[:N_CONFUSIONS]:
        names = row["examples"][:N_EXAMPLES]
        shown = [Picture(copies[n], n, title=n, href=cards.get(n, "")) for n in names if n in copies]
        examples = Cell(", ".join(n for n in names if n not in copies), pictures=shown)
        table.append((row["true"], row["predicted"], row["n"], examples))
    yield Table(("true class", "predicted as", "pictures", "examples"), table)


def _classes(data: Mapping[str, Any]) -> Block:
    rows = sorted(data["per_class"], key=lambda row: (row["f1"] or 0.0, row["label"]))
    columns = ("class", "pictures", Def("precision", "precision"), Def("recall", "recall"), Def("f1", "F1"), "")
    table = [
        (
            row["label"], row["n"], *(figure(row[k]) for k in ("precision", "recall", "f1")),
            Cell(bar=Bar("", row["f1"] or 0.0, colour="good")),
        )
        for row in rows
    ]  # fmt: skip
    return Table(columns, table)
