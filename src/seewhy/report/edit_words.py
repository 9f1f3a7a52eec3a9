"""What an edit of words changed, as one page."""

from __future__ import annotations

from typing import Any

from .page import render

KINDS = {"broken": "Right before, wrong now", "mended": "Wrong before, right now", "other": "Wrong in another way"}
MOST = 200


def render_edit(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    return render("edit_words.html", None, **edit_context(study))


def edit_context(study: dict[str, Any]) -> dict[str, Any]:
    """What the study's template shows, for every page that has the study on it."""
    first, _, rest = study["sentence"].partition("; ")
    rows = [{"name": "all pictures", "n": study["n"], **study["accuracy"]}]
    rows += [{"name": g["group"], **g} for g in study["groups"]]
    rows += [{"name": "gap between groups", "n": study["n"], **study["gap"]}] if study["gap"] else []
    flips = [(title, [f for f in study["flips"] if f["kind"] == kind]) for kind, title in KINDS.items()]
    return {
        **study,
        "headline": f"{first.removesuffix('.')}.",
        "rest": rest,
        "rows": [{**row, "points": _points(row["difference"]), "range": _range(row["interval"])} for row in rows],
        "turned": [(title, found[:MOST], len(found)) for title, found in flips if found],
    }


def _points(value: float) -> str:
    return f"{value * 100:+.1f}".replace("-", "−")


def _range(interval: list[float]) -> str:
    return f"{_points(interval[0])} to {_points(interval[1])}"
