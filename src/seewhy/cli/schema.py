"""``seewhy schema``: what the JSON outputs look like."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .terminal import say

EXAMPLES = """
Examples:\n
  seewhy schema\n
  seewhy schema explain > explain.schema.json\n
  seewhy schema "study faithfulness"
"""


def schema(
    name: Annotated[
        str | None, typer.Argument(help="One output, like explain; left out, the names of all.", show_default=False)
    ] = None,
) -> None:
    """The JSON Schema of what a verb prints with --json."""
    from ..results import list_schemas
    from ..results import schema as find

    if name is None:
        say(*list_schemas())
    else:
        say(*json.dumps(find(name), indent=2, ensure_ascii=False).splitlines())
