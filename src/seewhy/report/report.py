"""How good is the classifier, and how honest are its explanations: the page of ``seewhy evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from .curve import points
from .glossary import REPORT_TERMS, TERMS
from .page import photo_uri, render

N_LARGEST_MATRIX = 30
N_CONFUSIONS = 12
N_EXAMPLES = 4
USED = (
    "probability",
    "deletion",
    "insertion",
    "random-map",
    "held-out",
    "chance",
    "words-accuracy",
    "calibration",
    "sure",
    "unknown",
    "outside",
)
KEYS = (
    "model",
    "n",
    "accuracy",
    "accuracy_interval",
    "per_class",
    "calibration_error",
    "reliability",
    "confusions",
    "confusion_matrix",
    "trust",
    "faithfulness",
    "like",
    "words",
    "failures",
    "fitted_on",
)


def shown_examples(report: dict[str, Any]) -> list[str]:
    """The wrongly decided pictures that the page names."""
    rows = (report.get("confusions") or [])[:N_CONFUSIONS]
    return [name for row in rows for name in row.get("examples", [])[:N_EXAMPLES]]


def render_report(
    report: dict[str, Any],
    pictures: Mapping[str, np.ndarray] = MappingProxyType({}),
    cards: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The evaluation as one self-contained page."""
    known = {key: report.get(key) for key in KEYS}
    classes = sorted(known["per_class"] or [], key=lambda row: (row["f1"] or 0.0, row["label"]))
    return render(
        "report.html",
        None,
        **known | {"per_class": classes, "confusions": (known["confusions"] or [])[:N_CONFUSIONS]},
        n_fitted_on=sum((known["fitted_on"] or {}).get(key, 0) for key in ("n_same_bytes", "n_near")),
        was_confused=known["confusions"] is not None,
        n_examples=N_EXAMPLES,
        copies={name: photo_uri(pixels, 80) for name, pixels in pictures.items()},
        cards=cards,
        matrix=_matrix(known["confusion_matrix"]),
        too_large=_too_large(known["confusion_matrix"]),
        risk_line=_risk(known["trust"])[0],
        risk_top=_risk(known["trust"])[1],
        bins=_bins(known["reliability"]),
        line=_line(known["reliability"]),
        faith=_faithfulness(known["faithfulness"]),
        terms=(*REPORT_TERMS, *(term for term in TERMS if term.key in USED)),
    )


def _too_large(matrix: dict[str, Any] | None) -> int:
    """How many classes there are when the table of all pairs would be too large to read, else 0."""
    n = len(matrix["labels"]) if matrix else 0
    return n if n > N_LARGEST_MATRIX else 0


def _matrix(matrix: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """Rows of true classes; each cell with its count and its part of the row."""
    if not matrix or _too_large(matrix):
        return None
    labels = matrix["labels"]
    rows = []
    for index, (label, counts) in enumerate(zip(labels, matrix["counts"], strict=True)):
        total = sum(counts)
        cells = [
            {"n": n, "part": n / total if total else 0.0, "right": column == index, "predicted": labels[column]}
            for column, n in enumerate(counts)
        ]
        rows.append({"label": label, "total": total, "cells": cells})
    return rows


def _bins(reliability: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Bins that hold a picture, with the size of their dot on the diagram."""
    filled = [row for row in reliability or [] if row["n"]]
    most = max((row["n"] for row in filled), default=1)
    return [{**row, "radius": 1.1 + 2.4 * (row["n"] / most) ** 0.5} for row in filled]


def _line(reliability: list[dict[str, Any]] | None) -> str:
    filled = [row for row in reliability or [] if row["n"]]
    return " ".join(points([row["confidence"] for row in filled], [row["accuracy"] for row in filled], 1.0, 100.0))


def _risk(trust: dict[str, Any] | None) -> tuple[str, float]:
    """The risk–coverage curve on its own scale, and the top of that."""
    rows = trust["risk_coverage"] if trust else []
    top = max((row["risk"] for row in rows), default=0.0) or 1.0
    return " ".join(points([row["coverage"] for row in rows], [row["risk"] for row in rows], top, 100.0)), top


def _faithfulness(faithfulness: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Deletion and insertion beside their random maps, and whether the map does better."""
    if not faithfulness:
        return []
    rows = []
    for key, name, good in (("deletion", "Deletion", "low is good"), ("insertion", "Insertion", "high is good")):
        value, random = faithfulness.get(key), faithfulness.get(f"{key}_random")
        if value is not None:
            rows.append({"key": key, "name": name, "good": good, "value": value, "random": random})
    return rows
