"""The rows of the tables in docs/json.md, from the JSON Schemas of the outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from seewhy.results import list_schemas, schema

WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "object",
    "null": "`null`",
}
Row = tuple[str, str, str]


def rows(name: str) -> Iterator[Row]:
    """Key, type and meaning of everything in an output itself, not of what it takes over from another.

    >>> list(rows("failure"))[0]
    ('`image`', 'text', 'file name as given')
    """
    whole = schema(name)
    itself = whole["anyOf"][-1] if "anyOf" in whole else whole
    table = _Table(whole.get("$defs", {}))
    if (base := table.part(itself)) is not None and base not in list_schemas():
        yield from table.below({"$ref": itself["$ref"]}, "")
    yield from table.of(itself, "")


class _Table:
    """One table; a part that stands in several places is taken apart in the first."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts, self.shown = parts, set(list_schemas())

    @staticmethod
    def part(node: dict[str, Any]) -> str | None:
        """Name of what it refers to; outputs have a table of their own."""
        return node["$ref"].rpartition("/")[2] if "$ref" in node else None

    def of(self, node: dict[str, Any], path: str) -> Iterator[Row]:
        needed = node.get("required", ())
        for key, inner in node.get("properties", {}).items():
            optional = "" if key in needed else ", optional"
            yield f"`{(path + key).lstrip('.')}`", self.kind(inner) + optional, inner.get("description", "")
            if not inner.get("description", "").startswith("as in "):
                yield from self.below(inner, path + key)

    def below(self, node: dict[str, Any], path: str) -> Iterator[Row]:
        """What stands in a value."""
        name = self.part(node)
        if name is not None and name not in self.shown:
            self.shown |= {name} if "properties" in self.parts[name] else set()
            yield from self.below(self.parts[name], path)
        for inner in node.get("anyOf", ()):
            yield from self.below(inner, path)
        if "items" in node:
            yield from self.below(node["items"], f"{path}[]")
        yield from self.of(node, f"{path}.")

    def kind(self, node: dict[str, Any]) -> str:
        """Its type in words.

        >>> _Table({}).kind({"type": ["number", "null"], "minimum": 0, "maximum": 1})
        'number 0…1 or `null`'
        """
        if (name := self.part(node)) is not None:
            return self.kind(self.parts[name])
        if "anyOf" in node:
            return " or ".join(self.kind(inner) for inner in node["anyOf"])
        kinds = node.get("type", "anything")
        first, *null = [kinds] if isinstance(kinds, str) else kinds
        return _said(first, node, self) + (" or `null`" if null else "")


def _said(kind: str, node: dict[str, Any], table: _Table) -> str:
    """A type without its null."""
    choices = [node["const"]] if "const" in node else node.get("enum", ())
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices if choice is not None)
    if kind == "array":
        return f"`{node['description']}`" if "minItems" in node and "description" in node else _list(node, table)
    if kind == "object" and isinstance(node.get("additionalProperties"), dict) and "properties" not in node:
        return f"object of {_several(table.kind(node['additionalProperties']))}"
    return WORDS.get(kind, kind) + _range(node)


def _list(node: dict[str, Any], table: _Table) -> str:
    inner = table.kind(node["items"] if "items" in node else node["prefixItems"][0])
    return f"list of {_several(inner)}"


def _several(kind: str) -> str:
    return re.sub(r"^(whole number|number|object|list)", r"\1s", kind)


def _range(node: dict[str, Any]) -> str:
    if "maximum" not in node:
        return ""
    return f" {node['minimum']}…{node['maximum']}".replace("-", "−")
