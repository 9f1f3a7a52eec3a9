"""A study of explanations as one page: all numbers in one table, then a plot a metric, and what they rest on."""

from __future__ import annotations

from typing import Any

from .page import render

WIDTH = 100.0
FAMILIES = {
    "faithfulness": "Does changing what the map calls important change the answer?",
    "localisation": "Does the map fall on the object?",
    "randomisation": "Does the map depend on what the model learned?",
    "robustness": "Does the map stay when the picture hardly changes?",
    "complexity": "Is the map compact?",
}
"""What each family of metrics asks, in the order shown."""


def render_study(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    tables = sorted(study["metrics"], key=lambda t: list(FAMILIES).index(t["family"]))
    order = [line["method"] for line in study["ranking"]] + study["controls"]
    first, _, rest = study["sentence"].partition("; ")
    said = {
        "headline": first.removesuffix(".") + ".",
        "rest": rest[:1].upper() + rest[1:],
        "families": [
            {"question": question, "panels": [_panel(t) for t in tables if t["family"] == family]}
            for family, question in FAMILIES.items()
            if any(t["family"] == family for t in tables)
        ],
        "columns": tables,
        "lines": [_overview(name, study, tables) for name in order],
    }
    return render("study.html", None, **study, **said)


def short(value: float) -> str:
    """Three digits that count, with a real minus sign.

    >>> short(0.12345), short(-0.5), short(87.654), short(8050.0), short(0.00001)
    ('0.123', '−0.500', '87.7', '8050', '0')
    """
    size = abs(value)
    text = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return "0" if text in ("0.000", "-0.000") else text.replace("-", "−")


def _overview(name: str, study: dict[str, Any], tables: list[dict[str, Any]]) -> dict[str, Any]:
    """One method's line in the table of everything."""
    standing = next((line for line in study["ranking"] if line["method"] == name), None)
    return {
        "method": name,
        "control": name in study["controls"],
        "standing": standing,
        "cells": [_cell(name, table) for table in tables],
    }


def _cell(name: str, table: dict[str, Any]) -> dict[str, Any] | None:
    row = next((r for r in table["rows"] if r["method"] == name), None)
    if row is None:
        return None
    # Values of other pictures do not compare.
    values = [r["value"] for r in table["rows"] if not r["control"] and r["n"] == table["n"]]
    best = (max if table["higher_is_better"] else min)(values, default=None)
    judged = next((d for d in table["differences"] if d["a"] == name and d["b"] == "random"), None)
    return {
        **row,
        "text": short(row["value"]),
        "is_best": not row["control"] and row["n"] == table["n"] and row["value"] == best,
        "fewer": row["n"] != table["n"],
        "sign": "" if judged is None or not judged["real"] else "right" if judged["better"] == name else "wrong",
    }


def _panel(table: dict[str, Any]) -> dict[str, Any]:
    """A metric's rows, best first, then those of fewer pictures, controls below; their intervals on a common axis."""
    edges = [edge for row in table["rows"] for edge in row["interval"]]
    low, high = min(edges), max(edges)
    span = (high - low) or 1.0

    def across(value: float) -> str:
        return f"{(value - low) / span * WIDTH:.2f}"

    sign = -1 if table["higher_is_better"] else 1
    rows = sorted(table["rows"], key=lambda r: (r["control"], r["n"] < table["n"], sign * r["value"]))
    against = {d["a"]: d for d in table["differences"] if d["b"] == "random"}
    random = next((across(r["value"]) for r in rows if r["method"] == "random"), None)
    return {
        **table,
        "rows": [
            {
                **row,
                "text": short(row["value"]),
                "range": f"{short(row['interval'][0])} to {short(row['interval'][1])}",
                "at": across(row["value"]),
                "from": across(row["interval"][0]),
                "to": across(row["interval"][1]),
                "against_random": _verdict(against.get(row["method"]), row["method"]),
            }
            for row in rows
        ],
        "random": random,
        "best": rows[0]["method"],
        "best_text": short(rows[0]["value"]),
        "between": [d for d in table["differences"] if not d["control"]],
    }


def _verdict(difference: dict[str, Any] | None, name: str) -> str:
    if difference is None:
        return ""
    if not difference["real"]:
        return "not shown"
    return "better" if difference["better"] == name else "worse"
