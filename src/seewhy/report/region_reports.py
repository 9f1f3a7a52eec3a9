"""How good masks and boxes are, as pages: the figures beside their controls, then class by class."""

from __future__ import annotations

from typing import Any

from .curve import points
from .page import render
from .palette import named_colours

WIDTH = 100.0


def render_mask_report(data: dict[str, Any]) -> str:
    """The page."""
    most = max([row["interval"][1] for row in data["rows"]] + [1e-9])
    classes = sorted(data["classes"], key=lambda c: -1.0 if c["iou"] is None else -c["iou"])
    return render(
        "segment_report.html",
        None,
        **{**data, "classes": classes},
        headline=_headline(data),
        bars=[{**row, "at": row["miou"] / most * WIDTH, "verdict": _verdict(row)} for row in data["rows"]],
    )


def _headline(data: dict[str, Any]) -> str:
    """The figure, and whether it is anybody's."""
    own, controls = data["rows"][0], [row for row in data["rows"] if row["control"]]
    beaten = [row for row in controls if row["real"] and row["difference"] > 0]
    said = f"Mean IoU {100 * own['miou']:.1f}"
    if len(beaten) == len(controls):
        return f"{said}, above every control"
    worst = max((row for row in controls if row not in beaten), key=lambda row: row["miou"])
    return f"{said}, not shown to be above “{worst['name']}” ({100 * worst['miou']:.1f})"


def _verdict(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    if not row["real"]:
        return "not shown"
    return "below the model" if row["difference"] > 0 else "above the model"


RECALLS = [i / 100 for i in range(101)]


def render_box_report(data: dict[str, Any]) -> str:
    """The page."""
    colours = named_colours(data["classes"])
    curves = [
        {"label": row["label"], "colour": colours[row["label"]], "points": " ".join(_curve(row["precision"]))}
        for row in data["per_class"]
    ]
    return render("box_report.html", None, **data, headline=headline(data), curves=curves)


def _curve(precision: list[float | None]) -> list[str]:
    return points(RECALLS, [0.0 if p is None else p for p in precision], 1.0)


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

    Args:
        data: its calibration.

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
