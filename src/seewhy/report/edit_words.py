"""What an edit of words changed, as one page."""

from __future__ import annotations

from typing import Any

from .blocks import Cell, Document, Note, Picture, Section, Table, closing, pair, points

KINDS = {"broken": "Right before, wrong now", "mended": "Wrong before, right now", "other": "Wrong in another way"}
MOST = 200


def edit_document(study: dict[str, Any]) -> Document:
    """The study as blocks."""
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
        Section("Accuracy", [Note(f"{about} interval leaves out 0."), Table(accuracy, [_row(row) for row in rows])]),
    ]
    if moved := study["per_class"]:
        columns = ("class", "pictures", "right before", "right after", "chosen before", "chosen after")
        keys = ("label", "n", "right_before", "right_after", "chosen_before", "chosen_after")
        sections.append(Section("Classes that moved", [Table(columns, [[row[k] for k in keys] for row in moved])]))
    for kind, title in KINDS.items():
        if flips := [flip for flip in study["flips"] if flip["kind"] == kind]:
            more = f"The first {MOST} are listed; the JSON has all."
            table = Table(("picture", "is", "before", "now"), [_flip(flip) for flip in flips[:MOST]])
            notes = [Note(more)] if len(flips) > MOST else []
            sections.append(Section(f"{title}: {len(flips)}", [*notes, table]))
    of = "for the decision" if study["decides"] else "for what the words alone choose"
    return Document(
        "What changing words changes",
        f"{first.removesuffix('.')}.",
        [*sections, *closing(study, "What was left out")],
        f"Study of edited words on {study['n']} pictures, {of}",
        (rest[:1].upper() + rest[1:],),
    )


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
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
