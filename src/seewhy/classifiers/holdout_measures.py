"""What is reported of the pictures held out: how often it was right, how sure that is, and what cannot be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from ..metrics.calibration import accuracy_interval, calibration_error, reliability
from ..progress import Progress
from .base import HeldOut
from .expected import accuracy_between_halves, expected_range, range_in_words
from .holdout import Pictures


def common_measures(
    pictures: Pictures,
    n: int,
    held: HeldOut | None,
    progress: Progress,
    measured: Tensor | None = None,
    c: float | None = None,
) -> dict[str, Any]:
    """What every classifier that is fitted on pictures reports."""
    index = pictures.held.nonzero()[:, 0] if measured is None else measured
    figures: dict[str, Any] = {"held_out_accuracy": None, "held_out_interval": None, "held_out_calibration_error": None}
    how, expected = _facts(pictures, index), None
    if held is not None and held.logits is not None:
        confidence, decided = held.logits.softmax(1).max(1)
        right = decided == held.labels
        figures = {
            "held_out_accuracy": round(float(right.double().mean()), 4),
            "held_out_interval": [round(end, 4) for end in accuracy_interval(right, held.groups)],
            "held_out_calibration_error": round(calibration_error(reliability(confidence, right)), 4),
        }
        if how is not None and how["by"] != "given":
            hardest = accuracy_between_halves(held.pooled, held.labels, len(pictures.classes), c)
            if hardest is not None:  # it may be 0
                expected = expected_range(accuracy_interval(right, held.groups), hardest)
    return {
        **figures,
        "n_held_out": len(index) if held is None else len(held.labels),
        "measured_on": "validation pictures" if pictures.validation else "a part of the pictures",
        "split": how,
        "expected_range": expected and [round(end, 4) for end in expected],
        "n_pictures": n,
        "notes": list(progress.notes),
        "failures": [f.to_json() for f in progress.failures],
    }


def held_out_lines(measures: dict[str, Any]) -> list[str]:
    """What ``fit`` prints of the held-out figure: what to expect, what it rests on, and what is not known."""
    right, how = measures.get("held_out_accuracy"), measures.get("split")
    if right is None:
        return ["no picture could be held out: how often it is right is not known"]
    low, high = measures["held_out_interval"]
    of, between = f"right on {right:.1%} of {measures['n_held_out']}", f"(95 % interval {low:.1%} to {high:.1%})"
    if how is None:
        return [f"{of} validation pictures {between}"]
    if how["by"] == "given":
        lines = [f"{of} pictures, each held out with all others of its group {between}: expect this of new groups"]
    else:
        kept = f"each held out with all others of the same thing ({how['n_groups']:,} things, by looks)"
        if how["by"] == "copies":
            kept = "held out at random; shots of the same things, if there are any, flatter it"
        lines = [_another_day(measures.get("expected_range")), f"{of} pictures {between}, {kept}"]
    if (flattered := measures.get("random_accuracy")) is not None:
        lines.append(f"on a random part, which holds shots of the same things, {flattered:.1%}")
    unknown = "may show one thing only, by looks: how well new things are recognised is not known"
    for key, what in (
        ("unmeasured_classes", "cannot be measured, since all pictures show one thing"),
        ("one_thing_classes", unknown),
    ):
        if names := how[key]:
            some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            lines.append(f"{len(names)} class{'es' if len(names) > 1 else ''} ({some}) {what}")
    return lines


def _another_day(expected: Sequence[float] | None) -> str:
    """What cannot be told comes first, then what can be expected, and how to know."""
    said = "nothing in these pictures tells whether another place or another day is harder"
    if expected is not None:
        said += f": expect {range_in_words(expected)} right"
    return f"{said}. To know, name visits, cameras or patients with --group, or run seewhy evaluate on new pictures"


def _facts(pictures: Pictures, index: Int[Tensor, " m"]) -> dict[str, Any] | None:
    """How those held out were kept apart from the others; ``None`` for the user's own validation pictures."""
    grouping = pictures.grouping
    if grouping is None or pictures.validation:
        return None
    lone = [k for k in pictures.labels.unique().tolist() if not bool((pictures.labels[index] == k).any())]
    return {
        "by": grouping.by,
        "threshold": None if grouping.threshold is None else round(grouping.threshold, 4),
        "n_groups": len(grouping.groups.unique()),
        "unmeasured_classes": [pictures.classes[k] for k in lone] if len(index) else [],
        "one_thing_classes": [pictures.classes[k] for k in grouping.one_thing],
    }
