"""Pages of single commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import (
    Bar,
    Block,
    Cell,
    Chart,
    Curve,
    Document,
    Facts,
    Line,
    Note,
    Picture,
    Pictures,
    Section,
    Strong,
    Table,
    Text,
    closing,
    notes,
    pair,
    points,
)
from .charts import colour_of
from .page import figure, percent

COLUMNS = {"look": "image features", "whitened": "whitened image features", "words": "the space shared with texts"}
TITLES = {
    "ppgn": (
        "With the prior",
        "The search raises the score, and a prior keeps the codes close to the codes of real pictures.",
    ),
    "no_prior": ("Control: without the prior", "The same search from the same starts, with ε1 = 0 (DGN-AM)."),
    "pixels": (
        "Control: in pixels",
        "No generator: the search changes the pixels directly, from the same first pictures. It shows which pixels "
        "raise the network's score.",
    ),
}
FLIPS = {"broken": "Right before, wrong now", "mended": "Wrong before, right now", "other": "Wrong in another way"}
MOST_FLIPS = 200


def search_document(data: dict[str, Any], hits: Sequence[Any]) -> Document:
    n, n_searched = data["n"], data["n_searched"]
    among = f"{n_searched:,}" if n_searched == n else f"{n_searched:,} of {n:,}"
    note = "The search is exact: SeeWhy compared every picture."
    facts = {
        "encoder": data["encoder"],
        "fingerprint": data["fingerprint"][:12],
        "compared by": COLUMNS[data["column"]],
        "index version": data["version"],
    }
    shown = (
        Pictures([_hit(hit) for hit in hits], "sheet")
        if hits
        else Note("Nothing was found. Index some pictures first: seewhy index PHOTOS -o INDEX")
    )
    title, above = _asked(data["query"]), f"Search among {among} {'picture' if n == 1 else 'pictures'}"
    return Document(title, title, [shown, Section("The index", [Facts(facts)])], above, (note,))


def _hit(hit: Any) -> Picture:
    name = Path(hit.image).name
    parts = "" if hit.distance is None else f" · parts {figure(hit.distance)}"
    caption: list[Text] = [Strong(hit.label)] if hit.label else []
    caption += [name, f"cosine {figure(hit.cosine)}{parts}"]
    if hit.copies:
        copies = ", ".join(Path(copy).name for copy in hit.copies)
        caption.append(f"{len(hit.copies)} near-{'duplicate' if len(hit.copies) == 1 else 'duplicates'}: {copies}")
    return Picture(hit.thumbnail or None, name, caption, title=hit.image)


def _asked(query: dict[str, Any]) -> str:
    text, without = query["text"].strip(), query["without"].strip()
    like, unlike = (", ".join(Path(p).name for p in query[key]) for key in ("like", "unlike"))
    parts = {"": f"“{text}”" if text else "", "like ": like, "unlike ": unlike}
    parts["without "] = f"“{without}”" if without else ""
    return " · ".join(f"{word}{what}" for word, what in parts.items() if what)


def made_document(data: dict[str, Any], strips: dict[str, list[np.ndarray]]) -> Document:
    """Build the page of generated pictures."""
    first, _, rest = data["sentence"].partition(". ")
    sections = [Section("Result", [*_outcome(data)])]
    for row in data["ways"]:
        title, lead = TITLES[row["way"]]
        chains = [chain for chain in data["chains"] if chain["way"] == row["way"]]
        drawn = [_chain(*pair, data) for pair in enumerate(zip(chains, strips[row["way"]], strict=True), 1)]
        sections.append(Section(title, [Note(lead), *(block for blocks in drawn for block in blocks)]))
    note = (
        "A generated picture shows what raises this network's score, within what the generator can draw. It depends on "
        "the generator's training pictures, and may hide faults of the network that the controls show."
    )
    sections.append(Section("Settings", [Facts(_facts(data)), Note(note)]))
    asked = data["asked"]
    return Document(
        f"{asked}, generated", f"{first.removesuffix('.')}.", sections, f"Pictures generated for {asked}", (rest,)
    )


def _outcome(data: dict[str, Any]) -> Iterator[Block]:
    judge, measure = data["judge"], data["measure"]
    if judge:
        prior = "; the prior uses the same network" if judge["is_the_prior"] else ""
        yield Note(f"Judged by {judge['name']}, a network that the search did not use{prior}.")
    else:
        yield Note(
            f"Not judged. A network agrees with pictures generated for it, so its own {measure or 'answer'} is not "
            f"evidence."
        )
    columns = ("way", f"{measure or 'value'} at the start", "at the end", "judge agrees", "interval", "differ by")
    rows = []
    for row in data["ways"]:
        interval = " to ".join(map(percent, row["interval"])) if row["interval"] else None
        judged = None if row["judged"] is None else percent(row["judged"])
        values = (figure(row[key]) for key in ("start", "value"))
        others = (figure(row[key]) for key in ("diversity", "prior_error"))
        rows.append((TITLES[row["way"]][0], *values, judged, interval, *others))
    yield Table((*columns, "off the prior"), rows, idle=[i > 0 for i in range(len(rows))])
    differ = ": the mean distance between two pictures in the judge's features (1 − cosine). "
    off = ": how far the last picture's code is from the code that generated it, relative to that code."
    yield Note(Line(Strong("Differ by"), differ, Strong("Off the prior"), off))


def _chain(number: int, pair: tuple[dict[str, Any], np.ndarray], data: dict[str, Any]) -> tuple[Note, Pictures]:
    chain, strip = pair
    said: list[Any] = [Strong(str(number))]
    if (judged := chain["judged"]) is not None:
        said.append(f" · the judge sees {judged['label']}")
        if judged["agrees"] is not None:
            said.append(", as requested" if judged["agrees"] else f", not {data['asked']}")
            said.append(f"; {data['asked']} {percent(judged['probability'])}")
    frames = []
    for pixels, step, value in zip(strip, chain["steps"], chain["values"], strict=True):
        caption: list[Text] = ["start" if step == 0 else f"step {step}"]
        caption += [figure(value)] if data["measure"] else []
        frames.append(Picture(pixels, f"Chain {number} after {step} steps", caption))
    return Note(Line(*said), "rest"), Pictures(frames, "pixels")


def _facts(data: dict[str, Any]) -> dict[str, Any]:
    g, error = data["generator"], "not measured"
    trained = f"; trained on {g['n_pictures']} pictures for {g['n_steps']} steps" if "n_steps" in g else ""
    if "held_out_error" in g:
        error = (
            f"{g['held_out_error']:.3f} on {g['n_held_out']} held-out pictures; the mean picture has "
            f"{g['mean_picture_error']:.3f} (root mean square over pixels, black to white is 1)"
        )
    whose = f"of {g['encoder']}'s codes"
    if "prior" in g:
        trained = ""
        whose = f"{g['encoder']}, given; prior: {g['prior']}, which leaves {percent(g['noise_left'])} of the noise"
    made = {"generator": f"{whose}, {g['side']} pixels{trained}", "its error": error}
    return {**made, "chains start at": data["start"], **data["sampler"], "seed": data["seed"]}


def edit_document(study: dict[str, Any]) -> Document:
    first, _, rest = study["sentence"].partition(". ")
    changes = [
        (c["label"], c["before"] or "new", "taken out" if c["after"] is None else c["after"]) for c in study["changes"]
    ]
    rows = [{"name": "all pictures", "n": study["n"], **study["accuracy"]}]
    rows += [{"name": g["group"], **g} for g in study["groups"]]
    rows += [{"name": "gap between groups", "n": study["n"], **study["gap"]}] if study["gap"] else []
    level = f"{study['settings']['level'] * 100:g}"
    about = f"Differences are in points, with paired bootstrap intervals over pictures at {level} %. A colour marks an"
    note = f" {known['sentence']}".rstrip() if (known := study.get("fitted_on")) else ""
    accuracy = ("pictures", "n", "before", "after", "difference", "interval")
    sections = [
        Section("The edit", [Table(("class", "before", "after"), changes)]),
        Section("Accuracy", [Note(f"{about} interval without 0.{note}"), Table(accuracy, [*map(_edit_row, rows)])]),
    ]
    if moved := study["per_class"]:
        columns = ("class", "pictures", "right before", "right after", "chosen before", "chosen after")
        keys = ("label", "n", "right_before", "right_after", "chosen_before", "chosen_after")
        sections.append(Section("Classes with changes", [Table(columns, [[row[k] for k in keys] for row in moved])]))
    for kind, title in FLIPS.items():
        if flips := [flip for flip in study["flips"] if flip["kind"] == kind]:
            more = f"These are the first {MOST_FLIPS}. The JSON has all."
            table = Table(("picture", "label", "before", "now"), [_flip(flip) for flip in flips[:MOST_FLIPS]])
            notes = [Note(more)] if len(flips) > MOST_FLIPS else []
            sections.append(Section(f"{title}: {len(flips)}", [*notes, table]))
    of = "for the prediction" if study["decides"] else "for the class that the descriptions alone choose"
    return Document(
        "What the edit changes",
        f"{first.removesuffix('.')}.",
        [*sections, *closing(study, "Left out")],
        f"Edited descriptions on {study['n']} pictures, {of}",
        (rest[:1].upper() + rest[1:],),
    )


def _edit_row(row: dict[str, Any]) -> tuple[Any, ...]:
    better = (row["difference"] > 0) != (row["name"] == "gap between groups")
    colour: Any = "" if not row["real"] else "good" if better else "bad"
    change = Cell(points(row["difference"], sign=True), colour=colour)
    both = (f"{points(row[when])} %" for when in ("before", "after"))
    return (row["name"], row["n"], *both, change, pair(row["interval"], sign=True))


def _flip(flip: dict[str, Any]) -> tuple[Any, ...]:
    image: Any = flip["image"]
    if card := flip.get("card"):
        image = Cell(pictures=[Picture(f"{card}/thumbnail", image, title=image, href=card)], small=[image])
    return (image, flip["label"], flip["before"], flip["after"])


def mask_document(data: dict[str, Any]) -> Document:
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
        lines.append((c["label"], points(c["iou"]), between, f"{100 * c['share']:.1f} %", c["n_pictures"]))
    text = (
        "Intersection over union in per cent: the mean over classes that have pixels. A difference is real if its 95 % "
        "bootstrap interval over pictures excludes 0. "
        f"Pixel accuracy is {points(data['accuracy'])} %, which depends mostly on frequent classes."
    )
    columns = ("masks by", "mean IoU", "interval", "", "compared with the model")
    beside = Section("Compared with controls", [Table(columns, rows)])
    each = Table(("class", "IoU", "interval", "of the pixels", "pictures"), lines)
    above = f"{data['encoder']} · {data['method']} · {data['n']} pictures with masks"
    title = _headline(data)
    blocks = [beside, Section("Class by class", [each]), *closing(data, "Notes")]
    return Document(title, title, blocks, above, (text,))


def _headline(data: dict[str, Any]) -> str:
    """Return the mean IoU, and whether it is above the controls."""
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
    lines: list[tuple[str, Any, Mapping[str, Any]]] = [("all classes", data["n_boxes"], data)]
    lines.append(("any name", data["n_boxes"], data["any_name"]))
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
        Curve([(i / 100, p or 0.0) for i, p in enumerate(row["precision"])], row["label"], colour=colour_of(place))
        for place, row in enumerate(data["per_class"])
    ]
    table = data["confusion"]
    taken = [(label, *counts) for label, counts in zip(table["labels"], table["table"], strict=True)]
    text = (
        "All values are in per cent. AP is the mean over ten overlaps from 0.50 to 0.95 and over classes; AP50 is for "
        f"an overlap of 0.5. Controls do not use the class names. The 95 % intervals come from {data['n_draws']} "
        "bootstrap resamples of the pictures."
    )
    beside = ("control", "draws", "AP50", "best draw", "any name", "detector above it")
    counted = (
        f"Columns: boxes with a score of at least {table['least']}. Rows: true boxes with an overlap of at least 0.5."
    )
    blocks: list[Block] = [
        Section("Figures", [Table(("class", "boxes", "AP", "AP50"), figures)]),
        Section("What controls reach", [Table(beside, controls)]),
        Section("Precision and recall at AP50's overlap", [Chart("", curves, across="recall", upwards="precision")]),
        Section("Confusions", [Table(("true class", *table["labels"]), taken), Note(counted)]),
        *notes(data["notes"], "Notes"),
    ]
    above = f"{data['n_found']} boxes found and {data['n_boxes']} true boxes on {data['n_pictures']} pictures"
    return Document("Detection quality", headline(data), blocks, above, (text,))


def headline(data: dict[str, Any]) -> str:
    """Return AP50, and whether it is above the controls."""
    if data["ap50"] is None:
        return "These pictures have no true boxes, so average precision is undefined."
    return f"AP50 is {100 * data['ap50']:.1f}, {_beside(data['controls'])}."


def expected(data: dict[str, Any]) -> str:
    """Return the expected AP50 of a fitted detector, in words."""
    if data["ap50"] is None:
        return (
            f"Not measured: every class has fewer than {data['fewest']} boxes on the {data['n_pictures']} training "
            "pictures."
        )
    low, high = (100 * v for v in data["ap50_interval"])
    left = sum(row["ap50"] is None for row in data["classes"])
    few = f" {left} class(es) with fewer than {data['fewest']} boxes are not included." if left else ""
    return (
        f"Expect an AP50 of {low:.0f} to {high:.0f} on {data['n_pictures']} new pictures like the training pictures. "
        f"In cross-validation, AP50 is {100 * data['ap50']:.1f}, {_beside(data['controls'])}.{few}"
    )


def _beside(controls: list[dict[str, Any]]) -> str:
    below = [c["name"] for c in controls if not c["real"]]
    return f"which is not shown to be above the control “{below[0]}”" if below else "above every control"
