"""JSON Schemas (2020-12) of every ``--json`` output and of the pages' JSON, a file each; the tables of docs/json.md
are written from them. Keys may be added to an output, so the schemas allow keys that they do not name."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ..arguments import checked
from ..errors import UnknownNameError

SHARED = "shared"
"""The file of the parts that several outputs have."""
_ENDING = ".schema.json"


def list_schemas() -> list[str]:
    """Names of the outputs that have a schema.

    Example:
        >>> "explain" in list_schemas(), "study-faithfulness" in list_schemas()
        (True, True)
    """
    found = sorted(f.name.removesuffix(_ENDING) for f in files(__name__).iterdir() if f.name.endswith(_ENDING))
    return [name for name in found if name != SHARED]


@checked
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of an output, with all the parts it refers to.

    Args:
        name: of a verb, ``"explain"`` or ``"study faithfulness"``, or another of :func:`list_schemas`.

    Raises:
        UnknownNameError: no output is called so; carries the nearest.

    Example:
        >>> found = schema("failure")
        >>> found["required"], found["properties"]["image"]["type"]
        (['image', 'error'], 'string')
    """
    known = list_schemas()
    found = name.strip().replace(" ", "-")
    if found not in known:
        raise UnknownNameError("JSON output", name, known)
    parts: dict[str, Any] = {}
    whole = _bundled(_read(found), found, parts)
    return {**whole, "$defs": parts} if parts else whole


@cache
def _read(name: str) -> Any:
    return json.loads((files(__name__) / f"{name}{_ENDING}").read_text("utf-8"))


def _bundled(node: Any, file: str, parts: dict[str, Any]) -> Any:
    """A copy whose references lead into ``parts``, where what they lead to is put."""
    if isinstance(node, list):
        return [_bundled(one, file, parts) for one in node]
    if not isinstance(node, dict):
        return node
    copy = {key: _bundled(value, file, parts) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return copy
    other, _, part = node["$ref"].partition("#/$defs/")
    other = other.removesuffix(_ENDING) or file
    name = part or other
    if name not in parts:
        parts[name] = {}  # what refers to itself ends here
        found = _read(other)["$defs"][part] if part else _without_dialect(_read(other))
        parts[name] = _bundled(found, other, parts)
    return {"$ref": f"#/$defs/{name}", **copy}


def _without_dialect(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "$schema"}
