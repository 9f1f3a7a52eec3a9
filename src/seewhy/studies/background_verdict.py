"""The results of a model on pictures with other backgrounds, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ..evaluation.figures import N_FEWEST
from ..report.blocks import (
    Block,
    Cell,
    Colour,
    Document,
    Facts,
    Note,
    Picture,
    Pictures,
    Section,
    Table,
    closing,
    pair,
    points,
)
from .bootstrap import EQUAL, Error, figure, holm, one_sided, paired_means, rounded, within
from .pages import between, parted

Pixels = UInt8[np.ndarray, "h w 3"]
Example = tuple[str, str, list[tuple[str, Pixels, str, float]]]
"""A picture of the page and its class, and for each version its name, pixels, prediction and score."""
ALONE = ("original", "blurred", "background alone", "object alone", "object filled", "elsewhere filled")
"""Versions that need no other picture."""


LEAST = 0.05
"""Smallest difference of the score between backgrounds of the same class and of others that counts as reliance."""
SHOWN = ("original", "same class", "other classes", *ALONE[1:4])
"""Versions shown in tables."""
ALL = "all pictures"


@dataclass(frozen=True)
class Answers:
    """Scores and correct predictions of a model for every version of every picture."""

    score: Float[Tensor, "n v"]
    right: Float[Tensor, "n v"]

    @property
    def apart(self) -> Float[Tensor, "n r"]:
        """Score on backgrounds of the same class minus score on backgrounds of other classes, per round."""
        same, other = self.score[:, len(ALONE) :].chunk(2, 1)
        return same - other

    def shown(self, of: Float[Tensor, "n v"]) -> Float[Tensor, "n s"]:
        """Return the columns of :data:`SHOWN`, averaged over rounds."""
        same, other = (part.nanmean(1) for part in of[:, len(ALONE) :].chunk(2, 1))
        return torch.stack([of[:, 0], same, other, *of[:, 1:4].unbind(1)], 1)


def rule(level: float) -> str:
    """Return the rule of the verdict, in words."""
    return (
        "SeeWhy pastes each object onto backgrounds of its own class and of other classes. Yes: the score is at least "
        f"{LEAST:.2f} higher on backgrounds of its own class, and the one-sided p value for a difference above 0 is "
        f"below {1 - level:.2g}. No: the one-sided p value for a difference below {LEAST:.2f} is below "
        f"{1 - level:.2g}. Undecided: neither, or fewer than {N_FEWEST} pictures. All p values are corrected over the "
        "classes and all pictures together (Holm). If people did not draw the masks, yes has a further condition: "
        "painting over the object must lower the score more than painting over an equal area elsewhere. Otherwise "
        "masks that miss the object would look like reliance on the background."
    )


def error_of(apart: Float[Tensor, "n r"]) -> Error:
    """Return the standard error of the mean over pictures, from all rounds, which are not independent."""
    n, rounds = len(apart), [column[column.isfinite()].double() for column in apart.unbind(1)]
    spread = [float(one.var()) for one in rounds if len(one) > 1]
    return Error((sum(spread) / max(1, len(spread)) / n) ** 0.5, max(1, n - 1))


def judged(
    parts: Mapping[str, Bool[Tensor, " n"]], answers: Answers, masks_hit: bool, level: float, n_draws: int, seed: int
) -> list[dict[str, Any]]:
    """Return a row with a verdict for each part of the pictures, such as a class.

    Args:
        masks_hit: whether the masks cover the objects.
    """
    rows, p_values = [], []
    for name, chosen in parts.items():
        apart = answers.apart[chosen]
        error, value = error_of(apart), float(apart.nanmean(1).double().mean())
        off = within(level, [error])
        p_values.append((one_sided(value, error), one_sided(LEAST - value, error)))
        rows.append(
            {
                "label": name, "n": int(chosen.sum()), "difference": figure(value, (value - off, value + off)),
                "versions": _versions(answers, chosen, level, n_draws, seed),
            }
        )  # fmt: skip
    for row, p_yes, p_no in zip(rows, *(holm(p) for p in zip(*p_values, strict=True)), strict=True):
        row |= {"p_leans": float(f"{p_yes:.3g}"), "p_leans_not": float(f"{p_no:.3g}"), "verdict": "undecided"}
        enough, sure = row["n"] >= N_FEWEST, 1 - level - EQUAL
        if enough and row["difference"]["value"] >= LEAST and p_yes < sure:
            row["verdict"] = "yes" if masks_hit else "undecided"
        elif enough and p_no < sure:
            row["verdict"] = "no"
    return rows


def _versions(
    answers: Answers, chosen: Bool[Tensor, " n"], level: float, n_draws: int, seed: int
) -> list[dict[str, Any]]:
    """Return accuracy and score of each version, and their change from the original."""
    both = torch.cat([answers.shown(answers.right)[chosen], answers.shown(answers.score)[chosen]], 1)
    drawn = paired_means(both, n_draws=n_draws, level=level, seed=seed)

    def cell(i: int, original: int) -> dict[str, Any]:
        change, interval, _ = drawn.difference(i, original)
        return {**drawn.figure(i), "change": round(change, 4), "change_interval": rounded(interval)}

    first = {"accuracy": 0, "score": len(SHOWN)}
    return [
        {"version": name, **{measure: cell(k + i, k) for measure, k in first.items()}} for i, name in enumerate(SHOWN)
    ]


def mask_check(answers: Answers, level: float) -> dict[str, Any]:
    """Check that filling the object lowers the score more than filling an equal area elsewhere."""
    elsewhere, filled_in = (answers.score[:, ALONE.index(f"{what} filled")] for what in ("elsewhere", "object"))
    costs = (elsewhere - filled_in)[:, None]
    error, value = error_of(costs), float(costs.double().mean())
    off, p = within(level, [error]), one_sided(value, error)
    return {**figure(value, (value - off, value + off)), "p": float(f"{p:.3g}"), "hit": p < 1 - level - EQUAL}


def overall(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ``yes`` if any row says yes, ``no`` if the row of all pictures says no, and otherwise ``undecided``."""
    verdicts = {row["label"]: str(row["verdict"]) for row in rows}
    return "yes" if "yes" in verdicts.values() else verdicts[ALL]


def background_page(study: dict[str, Any], examples: Sequence[Example] = ()) -> Document:
    masks, how = study["masks"], study["settings"]
    rows = [study["all"], *sorted(study["classes"], key=lambda row: -row["difference"]["value"])]
    colours: dict[str, Colour] = {"yes": "bad", "no": "good", "undecided": ""}
    classes = [
        (
            row["label"], row["n"], Cell(row["verdict"], colour=colours[row["verdict"]]),
            Cell(between([row["difference"]["value"]], "+.3f"), [between(row["difference"]["interval"], "+.3f")]),
            f"{row['p_leans']:.2g}", f"{row['p_leans_not']:.2g}",
        )
        for row in rows
    ]  # fmt: skip
    head = ("class", "pictures", "relies on it", "score, same − other class", "p, above 0", f"p, below {LEAST:.2f}")
    lead = (
        "The score of the true class on backgrounds of the same class, minus the score on backgrounds of other "
        f"classes. Each object is pasted onto {how['n_rounds']} backgrounds of each kind. The p values are corrected "
        "over all rows."
    )
    changed = (
        f"Small numbers are intervals over pictures at {100 * how['level']:.0f} %, and the change from the original "
        f"pictures. “Same class” and “other classes”: the object on the background of another picture. “Background "
        "alone”: the object is painted over with the colours around it."
    )
    sections = [
        Section("The same objects, other backgrounds", [*_examples(examples)]),
        Section("Class by class", [Note(lead), Table(head, classes)]),
        Section("Accuracy, in per cent", [Note(changed), _versions_table(rows, "accuracy")]),
        Section("Score of the true class, in per cent", [_versions_table(rows, "score")]),
        Section("Who drew the masks", [*_masks(masks)]),
        Section("How SeeWhy judges", [Note(study["rule"])]),
    ]
    left = {row["image"]: row["error"] for row in study["left_out"][:50]}
    if left or study["classes_left_out"]:
        single = ", ".join(study["classes_left_out"])
        alone = [Note(f"Classes with one usable picture: {single}.")] if single else []
        sections.append(Section("Left out", [*alone, Facts(left)], kind="failed"))
    first, rest = parted(study["sentence"])
    above = f"{study['n']:,} pictures of {len(study['classes'])} classes"
    title = "Does the model rely on the background?"
    return Document(title, first, [*sections, *closing(study)], above, (rest,))


def _examples(examples: Sequence[Example]) -> Iterator[Block]:
    yield Note("Random pictures of a few classes. Below each: the predicted class, and the score of the true class.")
    for image, label, versions in examples:
        shown = [
            Picture(pixels, f"{label}, {name}", (name, f"{'✓' if said == label else '✗'} {said} {score:.2f}"))
            for name, pixels, said, score in versions
        ]
        yield Note(f"{label}, {image}", "aside")
        yield Pictures(shown, "row")


def _versions_table(rows: Sequence[Mapping[str, Any]], measure: str) -> Table:
    lines = []
    for row in rows:
        cells: list[Cell] = []
        for version in row["versions"]:
            one = version[measure]
            change = f"{points(one['change'], True)} ({pair(one['change_interval'])})"
            cells.append(Cell(points(one["value"]), [pair(one["interval"]), *([change] if cells else [])]))
        lines.append((row["label"], *cells))
    return Table(("class", *(v["version"] for v in rows[0]["versions"])), lines)


def _masks(masks: Mapping[str, Any]) -> Iterator[Block]:
    boxes, check = masks["boxes"], masks["check"]
    coverage = "" if masks["by_hand"] else " The masks were not checked with boxes."
    if boxes:
        coverage = (
            f" On {boxes['n']} pictures, the masks cover {points(boxes['covered'])} % of the objects' boxes, and "
            f"{points(boxes['within'])} % of the area of the masks lies inside these boxes."
        )
    yield Note(
        f"Masks: {masks['source']}. They cover {points(masks['area'])} % of the picture after preprocessing.{coverage}"
    )
    conclusion = "So the masks cover what the model uses."
    if not check["hit"]:
        conclusion = "So the masks may miss the object, or the model may not use it."
    yield Note(
        f"Control: painting over the object changes the score by {check['value']:+.3f} "
        f"({between(check['interval'], '+.3f')}) more than painting over the same shape elsewhere. {conclusion}"
    )
