"""``seewhy methods``: what there is."""

from __future__ import annotations

import json
from typing import Any

from .options import Json

EXAMPLES = """
Examples:\n
  seewhy methods\n
  seewhy methods --json
"""


def listing() -> list[dict[str, Any]]:
    """Every registered method, from its class attributes."""
    from ..attributions import attributions
    from ..classifiers import classifiers
    from ..metrics import metrics
    from ..planted import verdict
    from ..prototypes import prototypes

    rows = []
    for family, registry in (
        ("classifier", classifiers),
        ("where", attributions),
        ("like what", prototypes),
        ("metric", metrics),
    ):
        for name in registry:
            cls: Any = registry[name]
            summary = (cls.__doc__ or "").strip().partition("\n")[0]
            rows.append(
                {
                    "family": family,
                    "name": name,
                    "paper": cls.paper,
                    "needs": getattr(cls, "needs", "a map and the model"),
                    "cost": getattr(cls, "cost", "one forward pass a step"),
                    "planted": verdict(name) if family == "where" else "",
                    "summary": summary,
                }
            )
    return rows


def methods(as_json: Json = False) -> None:
    """Every method: family, paper, needs, cost in forward passes, and how often it finds planted evidence."""
    rows = listing()
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    """A family a heading, a method a line with what it is, and one with what it takes."""
    from itertools import groupby

    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for family, members in groupby(rows, lambda row: row["family"]):
        console.print(f"\n[bold]{family}[/bold]")
        for row in members:
            planted = f"; planted evidence: {row['planted']}" if row["planted"] else ""
            console.print(f"  [bold]{row['name']}[/bold]  {row['paper']}", markup=True)
            console.print(f"      needs {row['needs']}; passes: {row['cost']}{planted}", markup=False)
