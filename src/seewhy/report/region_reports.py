"""How good masks and boxes are, as documents: the figures beside their controls, then class by class."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from .blocks import Bar, Block, Cell, Chart, Colour, Curve, Document, Note, Section, Table, closing, notes, pair, points

COLOURS: tuple[Colour, ...] = ("ember", "good", "part", "bad", "ink", "idle")
"""Of curves, one class after the other."""


def mask_document(data: dict[str, Any]) -> Document:
    """How good masks are."""
    most = max([row["interval"][1] for row in data["rows"]] + [1e-9])
    rows = []
    for i, row in enumerate(data["rows"]):
        bar = Bar(row["name"], row["miou"] / most, colour="idle" if i else "ember")
        name = Cell(row["name"], small=(row["what"],))
        rows.append((name, points(row["miou"]), pair(row["interval"]), Cell(bar=bar), _verdict(row)))
    classes = sorted(data["classes"], key=lambda c: -1.0 if c["iou"] is None else -c["iou"])
    lines = []
    for c in classes:
        between = pair(c["interval"]) or "no pixel"
        lines.append((c["label"], points(c["iou"]), between, f"{c['share']:.1%}", c["n_pictures"]))
    text = (
        "Intersection over union, in per cent, the mean over classes that have a pixel. A difference is real where its "
        "bootstrap interval at 95 % over pictures leaves out 0. "
        f"{points(data['accuracy'])} % of the pixels are right, a figure that common classes make high."
    )
    columns = ("masks by", "mean IoU", "interval", "", "against the model")
    beside = Section("Beside its controls", [Table(columns, rows)])
    each = Table(("class", "IoU", "interval", "of the pixels", "pictures"), lines)
    above = f"{data['encoder']} · {data['method']} · {data['n']} pictures with masks"
    title = _headline(data)
    blocks = [beside, Section("Class by class", [each]), *closing(data, "Notes")]
    return Document(title, title, blocks, above, (text,))


def _headline(data: dict[str, Any]) -> str:
    """The figure, and whether it is anybody's."""
    own, controls = data["rows"][0], [row for row in data["rows"] if row["control"]]
    ahead = [row for row in controls if not (row["real"] and row["difference"] > 0)]
    figure = f"Mean IoU {points(own['miou'])}"
    if not ahead:
        return f"{figure}, above every control"
    worst = max(ahead, key=lambda row: row["miou"])
    return f"{figure}, not shown to be above “{worst['name']}” ({points(worst['miou'])})"


def _verdict(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    return "not shown" if not row["real"] else "below the model" if row["difference"] > 0 else "above the model"


def box_document(data: dict[str, Any]) -> Document:
    """How good boxes are."""
    lines: list[tuple[str, Any, Mapping[str, Any]]] = [("all classes", data["n_boxes"], data)]
    lines.append(("whatever the name", data["n_boxes"], data["any_name"]))
    lines += [(f"{g['name']} ({g['n_classes']})", "", g) for g in data["groups"]]
    lines += [(c["label"], c["n"], c) for c in data["per_class"]]
    figures = [
        (name, n, *(Cell(points(row[key]), small=(pair(row[f"{key}_interval"]),)) for key in ("ap", "ap50")))
        for name, n, row in lines
    ]
    controls = []
    for c in data["controls"]:
        ahead = Cell(points(c["above_best"]), small=(pair(c["above_best_interval"]), "" if c["real"] else "not shown"))
        reached = (points(c[key]) for key in ("ap50", "ap50_best", "any_name"))
        controls.append((c["name"], c["n_draws"], *reached, ahead))
    curves = [
        Curve([(i / 100, p or 0.0) for i, p in enumerate(row["precision"])], row["label"], colour=colour)
        for row, colour in zip(data["per_class"], cycle(COLOURS), strict=False)
    ]
    table = data["confusion"]
    taken = [(label, *counts) for label, counts in zip(table["labels"], table["table"], strict=True)]
    text = (
        "In per cent. AP is the mean over ten overlaps from .50 to .95 and over classes; AP50 asks for half. A control "
        "knows less than the detector: what it reaches is no merit of words. Intervals at 95 % over "
        f"{data['n_draws']} drawings of pictures."
    )
    beside = ("control", "drawings", "AP50", "the best", "whatever the name", "detector above it")
    counted = f"Columns: what was found with a score from {table['least']} on; rows: what overlaps it by half or more."
    blocks: list[Block] = [
        Section("Figures", [Table(("class", "boxes", "AP", "AP50"), figures)]),
        Section("What less knowledge reaches", [Table(beside, controls)]),
        Section("Precision by recall, at AP50's overlap", [Chart("", curves, across="recall", upwards="precision")]),
        Section("What is taken for what", [Table(("is there", *table["labels"]), taken), Note(counted)]),
        *notes(data["notes"], "Notes"),
    ]
    above = f"{data['n_found']} boxes found, {data['n_boxes']} are there, on {data['n_pictures']} pictures"
    return Document("How good the boxes are", headline(data), blocks, above, (text,))


def headline(data: dict[str, Any]) -> str:
    """Whether words do anything here, in one sentence.

    >>> headline({"ap50": 0.3, "controls": [{"name": "a", "real": True}, {"name": "b", "real": False}]})
    'AP50 is 30.0, which is not shown to be more than what b reaches.'
    """
    if data["ap50"] is None:
        return "Nothing is on these pictures, so nothing can be found."
    return f"AP50 is {100 * data['ap50']:.1f}, {_beside(data['controls'])}."


def expected(data: dict[str, Any]) -> str:
    """What a detector that was fitted is to be expected to reach, in one sentence.

    >>> expected({"ap50": None, "n_pictures": 4, "n_folds": 2, "fewest": 10})
    'Not measured: none of its classes has 10 boxes or more on the 4 pictures that it was fitted on.'
    """
    if data["ap50"] is None:
        return (
            f"Not measured: none of its classes has {data['fewest']} boxes or more on the {data['n_pictures']} "
            "pictures that it was fitted on."
        )
    low, high = (100 * v for v in data["ap50_interval"])
    left = sum(row["ap50"] is None for row in data["classes"])
    few = f" {left} class(es) with fewer than {data['fewest']} boxes are not in it." if left else ""
    return (
        f"Expect an AP50 of {low:.0f} to {high:.0f} on as many new pictures like the {data['n_pictures']} that it was "
        f"fitted on: each of these by a detector of the other folds, AP50 is {100 * data['ap50']:.1f}, "
        f"{_beside(data['controls'])}.{few}"
    )


def _beside(controls: list[dict[str, Any]]) -> str:
    below = [c["name"] for c in controls if not c["real"]]
    return f"which is not shown to be more than what {below[0]} reaches" if below else "above every control"
