"""The pages of an audit and of a comparison with the training pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...report.blocks import Block, Cell, Colour, Document, Facts, Note, Section, Table, closing, pair, points
from ..pages import between, parted

MOST_SHOWN = 50


def audit_page(data: dict[str, Any]) -> Document:
    """Does it keep the contract: every figure with its interval, limit, state and what it means."""
    headline, rest = parted(data["sentence"], "; " if data["audit"] == "pass" else ": ")
    order = {"fail": 0, "not measured": 1, "pass": 2}
    rows = sorted(data["figures"], key=lambda row: (not row["broken"], order[row["state"]]))
    columns = ("figure", "state", "measured", "judged", "asked for", "what it means")
    blocks: list[Block] = [Section("Figure by figure", [Table(columns, [_figure(row) for row in rows])])]
    if data["groups"]:
        lead = (
            "In per cent. Intervals hold for all groups together (Bonferroni); p values are Fisher's, corrected over "
            "the groups (Holm). Groups that are too small have neither."
        )
        lines = [
            (
                row["group"], row["n"], points(row["accuracy"]), points(row["accuracy_rest"]),
                None if row["gap"] is None else Cell(points(row["gap"], True), [pair(row["interval"])]),
                None if row["p"] is None else f"{row['p']:.2g}",
            )
            for row in data["groups"]
        ]  # fmt: skip
        head = ("group", "pictures", "right", "right on all others", "others less this group", "p")
        blocks.append(Section("Group by group", [Note(lead), Table(head, lines)]))
    if copies := data["copies"]:
        facts = {}
        for one in copies[:MOST_SHOWN]:
            how = "the same file as" if one["same_bytes"] else "a near copy of"
            agree = "" if one["agreement"] is None else f", agreement {one['agreement']:.3f}"
            facts[one["image"]] = f"{how} {one['fitted_on']}{agree}"
        more = len(copies) - MOST_SHOWN
        rest_of = [Note(f"and {more} more, in the JSON.")] if more > 0 else []
        blocks.append(Section("Pictures that it was fitted on", [Facts(facts), *rest_of]))
    n = data["n"]
    state = "Passed" if data["audit"] == "pass" else "Failed"
    above = f"Audit on {n:,} picture{'s' * (n != 1)}"
    below = (rest, f"Contract: {data['contract']}. Intervals at 95 %.")
    return Document("Audit", f"{state}. {headline}", [*blocks, *closing(data)], above, below)


def _figure(row: Mapping[str, Any]) -> tuple[Any, ...]:
    colour: Colour = "bad" if row["broken"] else "good" if row["state"] == "pass" else ""
    required = [] if row["state"] == "pass" else ["and required" if row["broken"] else "and not required"]
    measured = None
    if row["value"] is not None:
        around = [between(row["interval"])] if row["interval"] else []
        measured = Cell(f"{row['value']:.3f}".replace("-", "−"), [*around, f"n = {row['n']}"])
    level = [f"verdict {row['limit']['level']} or better"] if "level" in row["limit"] else []
    return (
        Cell(row["title"], [row["name"]]), Cell(row["state"], required, colour), measured, row["judged_by"] or "–",
        Cell(row["asked"].partition(",")[0], level), row["meaning"],
    )  # fmt: skip


def drift_page(data: dict[str, Any]) -> Document:
    """Do new pictures come from where the training pictures came from."""
    how, (headline, rest) = data["settings"], parted(data["sentence"], ": ")
    farthest = [
        (row["image"], row["label"], f"{row['cosine']:.3f}", "far" if row["far"] else "", row["nearest"])
        for row in data["pictures"]
    ]
    classes = [
        (
            row["label"], row["n"], points(row["share"]), points(row["expected"]),
            None if row["p"] is None else f"{row['p']:.2g}",
        )
        for row in data["classes"]
    ]  # fmt: skip
    near = f"By the mean cosine with the {how['n_near']} nearest training pictures."
    then = (
        "How often each class is decided for, in per cent, and how often it was there among the pictures held out "
        "while fitting. Fisher's p values, corrected over all classes (Holm). A class may also change as "
        "decisions are wrong."
    )
    columns = ("picture", "decided for", "cosine", "far", "nearest of training")
    sections = [
        Section("The farthest pictures", [Note(near), Table(columns, farthest)]),
        Section("Class by class", [Note(then), Table(("class", "pictures", "now", "then", "p"), classes)]),
    ]
    rule = (
        f"Features that the model keeps of its training pictures, by energy distance with {how['n_permutations']} "
        f"permutations. There is drift where p is below {how['alpha']}."
    )
    above = f"Drift of {data['n']:,} pictures against {data['n_known']:,}"
    return Document("Drift", headline, [*sections, *closing(data)], above, (rest, rule))
