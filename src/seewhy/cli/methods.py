"""``seewhy methods``: what there is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..catalogue import listing as listing
from .options import Json
from .terminal import say

EXAMPLES = """
Examples:\n
  seewhy methods\n
  seewhy methods rise\n
  seewhy methods --json
"""


def with_settings(name: str) -> list[dict[str, Any]]:
    """The methods of that name, those that ``--set`` can set with their fields: name, what it takes, default."""
    from ..attributions import attributions
    from ..classifiers import classifiers
    from ..errors import UnknownNameError
    from ..parameters import settings_of

    rows = listing()
    found = [row for row in rows if row["name"] == name]
    if not found:
        raise UnknownNameError("method", name, {row["name"] for row in rows})
    settable: dict[str, Any] = {"where": attributions, "classifier": classifiers}
    for row in found:
        registry = settable.get(row["family"])
        row["settings"] = [] if registry is None else [asdict(field) for field in settings_of(registry[name])]
    return found


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method, with its settings; left out, all.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Every method: family, paper, needs, cost in forward passes, and how often it finds planted evidence."""
    rows = listing() if name is None else with_settings(name)
    if as_json:
        for row in rows:
            say(json.dumps(row, ensure_ascii=False))
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
            if "settings" in row:
                console.print(f"      {row['summary']}", markup=False)
            for one in row.get("settings", ()):
                console.print(f"      --set {one['name']}={one['default']}  ({one['kind']})", markup=False)
