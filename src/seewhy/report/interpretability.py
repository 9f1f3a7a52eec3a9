"""The study of interpretability as one page: the answer, a curve and a table for each library, and correlations."""

from __future__ import annotations

from typing import Any

from .page import render

TITLES = {
    "prototype": ("Pieces of pictures", "Cells of training pictures, drawn at random, as the encoder sees each."),
    "cluster": ("Kinds of pieces", "Centres of k-means over such cells."),
    "text": ("Words", "Sentences, as the encoder's own words half sees them or, where it has none, as a judge does."),
    "random": ("Random directions", "The control: what any directions would keep. Mean of several draws."),
}
WIDTH, HEIGHT = 640, 240
LINES = ("var(--ember)", "var(--good)", "var(--part)", "var(--idle)", "var(--bad)", "var(--ink)")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
NAMES = {
    "iis": "score",
    "area": "mean sparse accuracy",
    "accuracy": "accuracy of all features",
    "neighbours": "accuracy of the nearest neighbours, other pictures",
    "iis of random": "score of random directions",
}


def render_interpretability(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    first, _, rest = study["sentence"].partition(". ")
    whole = {one["encoder"]: one for one in study["encoders"]}
    libraries = dict.fromkeys(row["library"] for row in study["rows"])
    return render(
        "interpretability.html",
        None,
        **study,
        headline=f"{first.removesuffix('.')}.",
        rest=rest,
        groups=[_group(name, study, whole) for name in libraries],
        lines=[
            {**line, "x": NAMES[line["of"]], "y": NAMES[line["with"]], "held": NAMES.get(line["given"] or "", "")}
            for line in study["correlations"]
        ],
        minus=_minus,
    )


def _minus(value: float, form: str = "+.2f") -> str:
    return f"{value:{form}}".replace("-", "−")


def _group(library: str, study: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    rows = [row for row in study["rows"] if row["library"] == library]
    title, lead = TITLES.get(library, (library, ""))
    edges = [edge for row in rows for edge in row["iis"]["interval"]]
    low, span = min(edges), (max(edges) - min(edges)) or 1.0

    def across(value: float) -> str:
        return f"{(value - low) / span * 100:.2f}"

    return {
        "title": title,
        "lead": lead,
        "rows": [
            {
                **row,
                "whole": whole[row["encoder"]],
                "from": across(row["iis"]["interval"][0]),
                "at": across(row["iis"]["value"]),
                "to": across(row["iis"]["interval"][1]),
                "less": _less(row.get("less_random")),
                "last": row["points"][-1],
            }
            for row in rows
        ],
        "plot": _plot(rows, whole),
    }


def _less(difference: dict[str, Any] | None) -> dict[str, str]:
    if difference is None:
        return {"text": "", "kind": "", "range": ""}
    kind = ("right" if difference["value"] > 0 else "wrong") if difference["real"] else ""
    low, high = (_minus(v, "+.3f") for v in difference["interval"])
    return {"text": _minus(difference["value"], "+.3f"), "kind": kind, "range": f"{low} to {high}"}


def _plot(rows: list[dict[str, Any]], whole: dict[str, Any]) -> dict[str, Any]:
    """Accuracy at each step of the grid, the steps at equal distances; first of all features."""
    values = [p["accuracy"]["value"] for row in rows for p in row["points"]]
    values += [whole[row["encoder"]]["accuracy"]["value"] for row in rows]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    n = len(rows[0]["points"])

    def place(i: int, value: float) -> str:
        return f"{WIDTH * i / n:.1f},{HEIGHT * (1 - (value - low) / span):.1f}"

    lines = []
    for j, row in enumerate(rows):
        curve = [whole[row["encoder"]]["accuracy"]["value"], *(p["accuracy"]["value"] for p in row["points"])]
        lines.append(
            {
                "name": row["encoder"],
                "colour": LINES[j % len(LINES)],
                "dash": DASHES[j // len(LINES) % len(DASHES)],
                "points": " ".join(place(i, v) for i, v in enumerate(curve)),
                "said": f"all features {curve[0]:.1%}; "
                + ", ".join(f"{p['kept']} concepts {p['accuracy']['value']:.1%}" for p in row["points"]),
            }
        )
    ticks = [("0", "all")] + [(f"{WIDTH * (i + 1) / n:.1f}", str(p["kept"])) for i, p in enumerate(rows[0]["points"])]
    return {"width": WIDTH, "height": HEIGHT, "lines": lines, "low": low, "high": high, "ticks": ticks}
