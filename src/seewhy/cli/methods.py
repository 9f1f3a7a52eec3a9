"""``seewhy methods``: what there is."""

from __future__ import annotations

import json
from typing import Any

from .options import Json

EXAMPLES = """
Examples:\n\n
  seewhy methods\n\n
  seewhy methods --json
"""


def listing() -> list[dict[str, Any]]:
    """Every registered method, from its class attributes."""
    from ..attributions import attributions
    from ..classifiers import classifiers
    from ..metrics import metrics
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
                    "summary": summary,
                }
            )
    return rows


def methods(as_json: Json = False) -> None:
    """Every method: family, paper, what it needs, cost in forward passes."""
    rows = listing()
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("family", "name", "paper", "needs", "cost"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row[c]) for c in ("family", "name", "paper", "needs", "cost")))
    Console().print(table)
