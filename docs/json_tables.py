"""The tables of docs/json.md, from the JSON Schemas of the outputs: the keys of each object, without its parts'."""

from __future__ import annotations

from typing import Any

from seewhy.results import schema

WORDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "array": "list",
    "object": "object", "null": "`null`",
}  # fmt: skip


def rows(name: str) -> list[tuple[str, str, str]]:
    """Key, type and meaning.

    >>> rows("failure")[0]
    ('`image`', 'text', 'file name as given')
    """
    whole = schema(name)
    parts = whole.get("$defs", {})
    table: dict[str, tuple[str, str, str]] = {}
    for node in _objects(whole, parts):
        needed = node.get("required", ())
        for key, inner in node.get("properties", {}).items():
            optional = "" if key in needed else ", optional"
            table.setdefault(key, (f"`{key}`", kind(inner, parts) + optional, inner.get("description", "")))
    return list(table.values())


def _objects(node: dict[str, Any], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """The object, or each that it may be, or of which it is a list."""
    if "$ref" in node:
        return _objects(parts[node["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in node:
        return [inner for choice in node["anyOf"] for inner in _objects(choice, parts)]
    return _objects(node["items"], parts) if "items" in node else [node]


def kind(node: dict[str, Any], parts: dict[str, Any]) -> str:
    """A type in words; of an object its keys.

    >>> kind({"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "null"}]}, {})
    'list of number or `null`'
    """
    if "$ref" in node:
        return kind(parts[node["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(kind(choice, parts) for choice in node["anyOf"]))
    if "const" in node or "enum" in node:
        return ", ".join(f"`{choice}`" for choice in node.get("enum", [node.get("const")]))
    if "properties" in node:
        return "object: " + ", ".join(f"`{key}`" for key in node["properties"])
    inner = node.get("items", node.get("additionalProperties"))
    of = f" of {kind(inner, parts)}" if isinstance(inner, dict) and inner else ""
    return WORDS.get(node.get("type", ""), "anything") + of
