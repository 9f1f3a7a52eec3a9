"""Encoders compared, as one page: which differences are real, every number with its interval, and how it was asked."""

from __future__ import annotations

from typing import Any

from .forest import colour_of, forest, said
from .page import render


def render_transfer(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    names = [e["name"] for e in study["encoders"]]
    families: dict[str, list[dict[str, Any]]] = {}
    for table in study["measures"]:
        families.setdefault(table["family"], []).append(table)
    headline, _, rest = study["sentence"].rstrip(".").partition("; ")
    return render(
        "transfer.html",
        None,
        **study,
        headline=f"{headline}.",
        rest=rest,
        legend=[(name, colour_of(i)) for i, name in enumerate(names)],
        families=[(family, forest(tables, names), tables) for family, tables in families.items()],
        said=said,
        real=real_ones,
    )


def real_ones(table: dict[str, Any]) -> list[str]:
    """Real differences of a measure, the better one first.

    >>> real_ones({"differences": [{"a": "x", "b": "y", "better": "y", "real": True}]})
    ['y > x']
    """
    return [f"{d['better']} > {d['b'] if d['better'] == d['a'] else d['a']}" for d in table["differences"] if d["real"]]
