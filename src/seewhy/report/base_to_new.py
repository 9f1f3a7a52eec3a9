"""Methods that learn classes by their names, as one page: what they bring these, and what they cost all others."""

from __future__ import annotations

from typing import Any

from .forest import colour_of, forest, said
from .page import render
from .transfer import real_ones


def render_base_to_new(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    names = study["methods"]
    tables = [
        {**table, "rows": [{"encoder": row["method"], **row} for row in table["rows"]]} for table in study["measures"]
    ]
    families: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        families.setdefault(table["family"], []).append(table)
    return render(
        "base_to_new.html",
        None,
        **{**study, "standings": [{"encoder": one["method"], **one} for one in study["standings"]]},
        n_classes=len(study["classes"]["learnt"]) + len(study["classes"]["new"]),
        headline=study["sentence"],
        rest="",
        legend=[(name, colour_of(i)) for i, name in enumerate(names)],
        families=[(family, forest(own, names), own) for family, own in families.items()],
        said=said,
        real=real_ones,
        encoders=[],
    )
