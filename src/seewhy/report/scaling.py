"""A learning curve as a document: the answer, the curve with its doubt, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .blocks import Block, Chart, Curve, Document, Dot, Note, Section, Table, closing, pair, points
from .page import percent, render_document


def render_scaling(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    return render_document(scaling_document(study))


def scaling_document(study: dict[str, Any]) -> Document:
    """The study as blocks."""
    first, _, rest = study["sentence"].partition("; ")
    how = study["settings"]
    sections = [Section(arm["name"], [*_arm(arm, study)]) for arm in study["arms"]]
    return Document(
        "How many pictures are needed",
        f"{first.rstrip('.')}.",
        [*sections, *closing(study)],
        above=f"Study of data size: {study['classifier']}",
        below=(
            rest[:1].upper() + rest[1:],
            f"Always tested on the same {study['n_test']:,} pictures, which nothing learnt from. Intervals are of "
            f"{how['n_seeds']} {how['draws']} subsets of each size, of the test pictures, and of what is not known of "
            "the curve's form.",
        ),
    )


def _arm(arm: dict[str, Any], study: dict[str, Any]) -> Iterator[Block]:
    band, measured, target = arm["band"], arm["points"], study["target"]
    yield Chart(
        arm["name"],
        [Curve([(row["n"], row["accuracy"]) for row in band], colour="good")],
        [(row["n"], *row["interval_90"]) for row in band],
        [
            *(Dot(p["n"], value, 2.5, colour="idle") for p in measured for value in p["by_seed"]),
            *(Dot(p["n"], p["accuracy"], 3.5, f"{p['n']:,} pictures: {points(p['accuracy'])} %") for p in measured),
        ],
        across="pictures learnt from",
        log=True,
        levels=[] if target is None else [(target, "bad")],
        edges=[measured[-1]["n"]],
        alt="Accuracy by number of pictures: " + "; ".join(f"{p['n']:,}: {percent(p['accuracy'])}" for p in measured),
    )
    wanted = "" if target is None else f" The line across is the target, {percent(target)}."
    yield Note(
        f"Dots are subsets, dark ones their means; the band holds 90 % of what may be. Left of the dashed line is the "
        f"tested range, {measured[0]['n']:,} to {measured[-1]['n']:,} pictures; right of it nothing was measured."
        f"{wanted}"
    )
    slope, floor = arm["slope"], arm["floor"]
    yield Note(
        f"A doubling brought {points(slope['value'])} points (90 %: {pair(slope['interval_90'])}; 95 %: "
        f"{pair(slope['interval_95'])}). Error that no number of pictures goes below: {points(floor['value'])} % "
        f"(90 %: {pair(floor['interval_90'])})."
    )
    rows = [
        (p["n"], f"{points(p['accuracy'])} %", pair(p["interval_90"]), pair(p["interval_95"]), kind)
        for kind, found in (("measured", measured), ("foretold", arm["predictions"]))
        for p in found
    ]
    yield Table(("pictures", "right", "90 %", "95 %", ""), rows)
    yield Note("Forms of the curve share the draws by how well each foretold larger sizes that it was not fitted on.")
    yield Table(
        ("form", "formula", "relative error at held-out sizes", "share", "failed fits"),
        [
            (
                f["name"],
                f["formula"],
                "–" if f["held_out_error"] is None else f"{f['held_out_error']:.3f}",
                percent(f["share"]),
                f"{f['n_failed']} of {f['n_fits']}",
            )
            for f in arm["forms"]
        ],
    )
    if (other := arm["against"]) is not None:
        yield Note(_against(study["arms"][0]["name"], other))


def _against(first: str, other: dict[str, Any]) -> str:
    accuracy, slope, worth = other["accuracy"], other["slope"], other["worth"]
    text = (
        f"Against {first}: {points(accuracy['value'], sign=True)} points at the largest size (95 %: "
        f"{pair(accuracy['interval_95'])}); a doubling brings {points(slope['value'])} points more (95 %: "
        f"{pair(slope['interval_95'])})."
    )
    if worth is None:
        return text
    low, high = worth["interval_95"]
    return f"{text} A picture of it is worth {worth['value']:.2f} of the first (95 %: {low:.2f} to {high:.2f})."
