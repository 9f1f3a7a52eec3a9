"""Pages of single commands as documents: searching, making pictures, editing words, how good masks and boxes are."""

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

COLUMNS = {"look": "what is seen", "whitened": "what is seen, whitened", "words": "the space shared with words"}
TITLES = {
    "ppgn": ("With the prior", "Codes climb, and are drawn back to those that pictures have."),
    "no_prior": ("Control: without the prior", "The same climb from the same starts with ε1 = 0 (DGN-AM)."),
    "pixels": (
        "Control: in pixels",
        "No generator: the pixels climb themselves, from the same first pictures. What this looks like is what the "
        "network would be content with.",
    ),
}
FLIPS = {"broken": "Right before, wrong now", "mended": "Wrong before, right now", "other": "Wrong in another way"}
MOST_FLIPS = 200


def search_document(data: dict[str, Any], hits: Sequence[Any]) -> Document:
    n, n_searched = data["n"], data["n_searched"]
    among = f"{n_searched:,}" if n_searched == n else f"{n_searched:,} of {n:,}"
    found = "Every picture was compared: no nearer one was missed."
    facts = {
        "encoder": data["encoder"],
        "fingerprint": data["fingerprint"][:12],
        "compared by": COLUMNS[data["column"]],
        "index version": data["version"],
    }
    shown = Pictures([_hit(hit) for hit in hits], "sheet") if hits else Note("Nothing was found.")
    asked, above = _asked(data["query"]), f"Search among {among} {'picture' if n == 1 else 'pictures'}"
    return Document(asked, asked, [shown, Section("The index", [Facts(facts)])], above, (found,))


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
    """For each way its chains as strips, and a table of what a second network sees."""
    first, _, rest = data["sentence"].partition(". ")
    sections = [Section("What came of it", [*_outcome(data)])]
    for row in data["ways"]:
        title, lead = TITLES[row["way"]]
        chains = [chain for chain in data["chains"] if chain["way"] == row["way"]]
        drawn = [_chain(*pair, data) for pair in enumerate(zip(chains, strips[row["way"]], strict=True), 1)]
        sections.append(Section(title, [Note(lead), *(block for blocks in drawn for block in blocks)]))
    note = (
        "A made picture shows what this network looks for as far as the generator can draw it. It inherits what the "
        "generator was trained on, and can hide a fault of the network that the controls show."
    )
    sections.append(Section("How they were made", [Facts(_facts(data)), Note(note)]))
    asked = data["asked"]
    return Document(f"{asked}, made", f"{first.removesuffix('.')}.", sections, f"Pictures made for {asked}", (rest,))


def _outcome(data: dict[str, Any]) -> Iterator[Block]:
    judge, measure = data["judge"], data["measure"]
    if judge:
        prior = "; the prior rests on the same network" if judge["is_the_prior"] else ""
        yield Note(f"Judged by {judge['name']}, which was not climbed{prior}.")
    else:
        yield Note(
            f"Not judged: whatever is climbed agrees with what is made for it, so that its own {measure or 'word'} "
            "proves nothing."
        )
    columns = ("way", f"{measure or 'value'} at the start", "in the end", "judged so", "interval", "differ by")
    rows = []
    for row in data["ways"]:
        interval = " to ".join(map(percent, row["interval"])) if row["interval"] else None
        judged = None if row["judged"] is None else percent(row["judged"])
        values = (figure(row[key]) for key in ("start", "value"))
        others = (figure(row[key]) for key in ("diversity", "prior_error"))
        rows.append((TITLES[row["way"]][0], *values, judged, interval, *others))
    yield Table((*columns, "off the prior"), rows, idle=[i > 0 for i in range(len(rows))])
    differ = ": mean distance of two pictures in the judge's features, 1 − cosine. "
    off = ": how far the code of the last picture is from the code it was made of, as a part of it."
    yield Note(Line(Strong("Differ by"), differ, Strong("Off the prior"), off))


def _chain(number: int, pair: tuple[dict[str, Any], np.ndarray], data: dict[str, Any]) -> tuple[Note, Pictures]:
    chain, strip = pair
    said: list[Any] = [Strong(str(number))]
    if (judged := chain["judged"]) is not None:
        said.append(f" · the judge sees {judged['label']}")
        if judged["agrees"] is not None:
            said.append(", as asked" if judged["agrees"] else f", not {data['asked']}")
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
            f"{g['held_out_error']:.3f} on {g['n_held_out']} pictures held out, the mean picture "
            f"{g['mean_picture_error']:.3f}; root mean square over pixels, black to white being 1"
        )
    whose = f"of {g['encoder']}'s codes"
    if "prior" in g:
        trained = ""
        whose = f"{g['encoder']}, brought; prior: {g['prior']}, which leaves {percent(g['noise_left'])} of the noise"
    made = {"generator": f"{whose}, {g['side']} pixels{trained}", "its error": error}
    return {**made, "chains start at": data["start"], **data["sampler"], "seed": data["seed"]}


def edit_document(study: dict[str, Any]) -> Document:
    first, _, rest = study["sentence"].partition("; ")
    changes = [
        (c["label"], c["before"] or "new", "taken out" if c["after"] is None else c["after"]) for c in study["changes"]
    ]
    rows = [{"name": "all pictures", "n": study["n"], **study["accuracy"]}]
    rows += [{"name": g["group"], **g} for g in study["groups"]]
    rows += [{"name": "gap between groups", "n": study["n"], **study["gap"]}] if study["gap"] else []
    level = f"{study['settings']['level'] * 100:g}"
    about = f"Differences in points, with paired bootstrap intervals over pictures at {level} %; coloured where the"
    accuracy = ("pictures", "n", "before", "after", "difference", "interval")
    sections = [
        Section("The edit", [Table(("class", "before", "after"), changes)]),
        Section("Accuracy", [Note(f"{about} interval leaves out 0."), Table(accuracy, [*map(_edit_row, rows)])]),
    ]
    if moved := study["per_class"]:
        columns = ("class", "pictures", "right before", "right after", "chosen before", "chosen after")
        keys = ("label", "n", "right_before", "right_after", "chosen_before", "chosen_after")
        sections.append(Section("Classes that moved", [Table(columns, [[row[k] for k in keys] for row in moved])]))
    for kind, title in FLIPS.items():
        if flips := [flip for flip in study["flips"] if flip["kind"] == kind]:
            more = f"The first {MOST_FLIPS} are listed; the JSON has all."
            table = Table(("picture", "is", "before", "now"), [_flip(flip) for flip in flips[:MOST_FLIPS]])
            notes = [Note(more)] if len(flips) > MOST_FLIPS else []
            sections.append(Section(f"{title}: {len(flips)}", [*notes, table]))
    of = "for the decision" if study["decides"] else "for what the words alone choose"
    return Document(
        "What changing words changes",
        f"{first.removesuffix('.')}.",
        [*sections, *closing(study, "What was left out")],
        f"Study of edited words on {study['n']} pictures, {of}",
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
        Curve([(i / 100, p or 0.0) for i, p in enumerate(row["precision"])], row["label"], colour=colour_of(place))
        for place, row in enumerate(data["per_class"])
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
    """Whether words do anything here, in one sentence."""
    if data["ap50"] is None:
        return "Nothing is on these pictures, so nothing can be found."
    return f"AP50 is {100 * data['ap50']:.1f}, {_beside(data['controls'])}."


def expected(data: dict[str, Any]) -> str:
    """What a detector that was fitted is to be expected to reach, in one sentence."""
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
