"""Made pictures as one page: for each way its chains as strips, and a table of what a second network sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .blocks import Block, Document, Facts, Line, Note, Picture, Pictures, Section, Strong, Table, Text
from .page import figure, percent, render_document

TITLES = {
    "ppgn": ("With the prior", "Codes climb, and are drawn back to those that pictures have."),
    "no_prior": ("Control: without the prior", "The same climb from the same starts with ε1 = 0 (DGN-AM)."),
    "pixels": (
        "Control: in pixels",
        "No generator: the pixels climb themselves, from the same first pictures. What this looks like is what the "
        "network would be content with.",
    ),
}


def render_made(data: dict[str, Any], strips: dict[str, list[np.ndarray]]) -> str:
    """The chains as one self-contained page."""
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
    return render_document(
        Document(f"{asked}, made", f"{first.removesuffix('.')}.", sections, f"Pictures made for {asked}", (rest,))
    )


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
    columns = ["way", *([f"{measure} at the start", "in the end"] if measure else [])]
    columns += [*(["judged so", "interval", "differ by"] if judge else []), "off the prior"]
    rows = []
    for row in data["ways"]:
        cells: list[Any] = [TITLES[row["way"]][0]]
        if measure:
            cells += [figure(row["start"]), figure(row["value"])]
        if judge:
            interval = " to ".join(map(percent, row["interval"])) if row["interval"] else None
            judged = None if row["judged"] is None else percent(row["judged"])
            cells += [judged, interval, figure(row["diversity"])]
        rows.append([*cells, figure(row["prior_error"])])
    yield Table(columns, rows, idle=[i > 0 for i in range(len(rows))])
    differ: list[Any] = [Strong("Differ by"), ": mean distance of two pictures in the judge's features, 1 − cosine. "]
    off = ": how far the code of the last picture is from the code it was made of, as a part of it."
    yield Note(Line(*(differ if judge else []), Strong("Off the prior"), off))


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


def _facts(data: dict[str, Any]) -> dict[str, str]:
    g, s = data["generator"], data["sampler"]
    one = "; steps brought to one length, so that ε3 counts beside the others only" if s["normalise"] else ""
    trained = f"; trained on {g['n_pictures']} pictures for {g['n_steps']} steps" if "n_pictures" in g else ""
    error = "not measured"
    if "held_out_error" in g:
        error = (
            f"{g['held_out_error']:.3f} on {g['n_held_out']} pictures held out, the mean picture "
            f"{g['mean_picture_error']:.3f}; root mean square over pixels, black to white being 1"
        )
    return {
        "generator": f"of {g['encoder']}'s codes, {g['side']} pixels{trained}",
        "its error": error,
        "chains start at": data["start"],
        "sampler": f"ε1 {s['eps1']}, ε2 {s['eps2']}, ε3 {s['eps3']}, {s['n_steps']} steps, gradient of "
        f"{s['gradient'].replace('_', ' ')}{one}; seed {data['seed']}",
    }
