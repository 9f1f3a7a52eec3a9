"""The study of descriptions as one page: the answer, every arm with its interval, and accuracy against the weight."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from .page import render

GROUPS = {
    "with names": (
        "With the class's name in every sentence",
        "Each arm says as many sentences a class, so that they differ only in what they say. The names alone say one.",
    ),
    "without names": (
        "Without the class's name",
        "The class's own name is taken out of its texts. “Alone” decides by the texts only; the others add w times the "
        "cosine with the name, w chosen on one half of the pictures for the other half.",
    ),
    "chosen": (
        "Chosen on labelled pictures",
        "This is not zero-shot: one half of the pictures chooses descriptions and w, the other half is decided on, and "
        "the other way round. The nearest class mean uses the same labels without any words. Nothing here can be right "
        "where the class is not in question.",
    ),
    "pictures": (
        "By pictures instead of words",
        "A linear probe in the same space, fitted on so many labelled pictures a class of one half, drawn anew each "
        "time, decides on the other half. The differences are those from names and from descriptions with names.",
    ),
}
WIDTH, HEIGHT = 640, 260
LINES = ("var(--ember)", "var(--good)", "var(--part)", "var(--idle)", "var(--bad)", "var(--ink)")


def render_semantics(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    first, _, rest = study["sentence"].partition("; ")
    return render(
        "description_semantics.html",
        None,
        **study,
        headline=f"{first}.",
        rest=rest[:1].upper() + rest[1:],
        groups=[g for key in GROUPS if (g := _group(key, study)) is not None],
        plot=_plot(study["curves"]),
    )


def _group(key: str, study: dict[str, Any]) -> dict[str, Any] | None:
    """Arms that are asked the same, on one axis of their own."""
    arms = [arm for arm in study["arms"] if arm["group"] == key]
    if not arms:
        return None
    edges = [study["chance"], *(e for arm in arms for e in arm["interval"])]
    low, span = min(edges), (max(edges) - min(edges)) or 1.0
    title, lead = GROUPS[key]
    if key == "without names":
        lead += (
            f" Lists dealt out to the classes at random do as well as they do alone in {study['luck']:.1%} of cases."
        )
    return {
        "title": title,
        "lead": lead,
        "chance_at": f"{(study['chance'] - low) / span * 100:.2f}",
        "has_oracle": any("oracle" in arm for arm in arms),
        "arms": [_line(arm, low, span) for arm in arms],
    }


def _line(arm: dict[str, Any], low: float, span: float) -> dict[str, Any]:
    across = [f"{(v - low) / span * 100:.2f}" for v in (arm["interval"][0], arm["value"], arm["interval"][1])]
    judged = {key: _said(arm.get(key)) for key in ("less_names", "less_descriptions")}
    return {**arm, "from": across[0], "at": across[1], "to": across[2], **judged, "oracle": arm.get("oracle")}


def _said(difference: dict[str, Any] | None) -> dict[str, str]:
    if difference is None:
        return {"text": "", "kind": "", "range": ""}
    points = f"{difference['value'] * 100:+.1f}".replace("-", "−")
    kind = ("right" if difference["value"] > 0 else "wrong") if difference["real"] else ""
    ends = [f"{v * 100:+.1f}".replace("-", "−") for v in difference["interval"]]
    return {"text": points, "kind": kind, "range": f"{ends[0]} to {ends[1]}"}


def _plot(curves: dict[str, Any]) -> dict[str, Any] | None:
    """Lines of accuracy against the weight, on one scale."""
    if not curves["arms"]:
        return None
    weights = curves["weights"]
    values = [v for curve in curves["arms"].values() for v in curve]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def place(w: float, v: float) -> tuple[float, float]:
        # The square root gives small weights, where it happens, the room.
        return WIDTH * (w / weights[-1]) ** 0.5, HEIGHT * (1 - (v - low) / span)

    lines = []
    for (name, curve), colour in zip(curves["arms"].items(), LINES, strict=False):
        points = [place(w, v) for w, v in zip(weights, curve, strict=True)]
        thinned = [a for a, b in pairwise(points) if abs(b[1] - a[1]) > 0.01 or a == points[0]] + points[-1:]
        best = max(range(len(curve)), key=curve.__getitem__)
        lines.append(
            {
                "name": name,
                "colour": colour,
                "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in (thinned if len(thinned) > 2 else points)),
                "best": {"x": f"{points[best][0]:.1f}", "y": f"{points[best][1]:.1f}"},
                "said": f"best {curve[best]:.1%} at w = {weights[best]:g}; {curve[0]:.1%} at 0, {curve[-1]:.1%} at "
                f"{weights[-1]:g}",
            }
        )
    ticks = [(f"{place(w, low)[0]:.1f}", f"{w:g}") for w in (0, 1, 5, 10, 20, 39.75) if w <= weights[-1]]
    return {"width": WIDTH, "height": HEIGHT, "lines": lines, "low": low, "high": high, "ticks": ticks}
