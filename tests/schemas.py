"""JSON outputs held to their schemas, more strictly than users are: a key that no schema names is an error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import jsonschema

from seewhy.results import schema


def strict(node: Any, *, here: bool = True) -> Any:
    """The schema with no further keys allowed, but where it says itself what others there may be.

    Args:
        node: a schema or a part of one.
        here: whether something stands here by itself, not as one of several views of the same thing.
    """
    if not isinstance(node, dict) or not node:
        return node
    found = dict(node)
    for key in ("properties", "$defs"):
        if key in node:
            found[key] = {name: strict(one, here=key == "properties") for name, one in node[key].items()}
    for key in ("items", "additionalProperties"):
        if key in node:
            found[key] = strict(node[key])
    if "anyOf" in node:
        found["anyOf"] = [strict(one, here=False) for one in node["anyOf"]]
    return {**found, "unevaluatedProperties": False} if here else found


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(strict(schema(name)))


ALSO = {
    "fit": ("fit", "fit-answers", "fit-prototypes", "fit-explainer", "fit-segmenter", "fit-detector"),
    "evaluate": ("evaluate", "audit", "drift"),
    "check": ("check", "corrected", "pairs-check", "pairs-clean"),
    "app": ("annotate", "corrected"),
    "index": ("index", "embed", "embed-status", "verify"),
    "describe-write": ("describe-classes", "describe-pairs"),
    "study-generate": ("generate",),
}
"""Verb → the outputs that it may have."""


def check(name: str, rows: Iterable[Any]) -> None:
    """Every one of these outputs is as the schema says.

    Raises:
        AssertionError: one is not; says where and how.
    """
    for row in rows:
        wrong = [f"{one.json_path}: {one.message[:300]}" for one in _told(list(validator(name).iter_errors(row)))]
        if wrong:
            raise AssertionError(f"not as the schema of {name} says: {wrong[:5]}")


def _told(errors: list[jsonschema.ValidationError]) -> list[jsonschema.ValidationError]:
    """The errors; where no alternative fits, those of the last one, which is the output itself."""
    found = []
    for error in errors:
        if error.validator == "anyOf":
            last = len(error.validator_value) - 1
            found += _told([one for one in error.context or () if one.relative_schema_path[0] == last])
    return found or errors


def printed(command: Sequence[object], text: str | bytes | None) -> None:
    """What a command line printed with ``--json``, if it is one, is as the verb's schema says."""
    words = [str(word) for word in command]
    if "seewhy" in words:
        words = words[words.index("seewhy") + 1 :]
    if "--json" in words and text:
        lines = (text if isinstance(text, str) else text.decode("utf-8")).splitlines()
        verb = "-".join(words[: 2 if words[0] in ("study", "describe") else 1])
        for row in map(json.loads, lines):
            names = ALSO.get(verb, (verb,))
            check(next((name for name in names if validator(name).is_valid(row)), names[0]), [row])


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Every key of a JSON value: ``a.b`` of an object in an object, ``a[].b`` of one in a list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            yield here
            yield from keys(inner, here)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict):
                yield from keys(inner, f"{path}[]")


def named(name: str) -> set[str]:
    """Every key that a schema names, written alike."""
    whole = schema(name)
    return set(_named(whole, whole.get("$defs", {}), ""))


def _named(node: dict[str, Any], parts: dict[str, Any], path: str) -> Iterator[str]:
    if "$ref" in node:
        yield from _named(parts[node["$ref"].rpartition("/")[2]], parts, path)
    for inner in node.get("anyOf", ()):
        yield from _named(inner, parts, path)
    if "items" in node:
        yield from _named(node["items"], parts, f"{path}[]")
    for key, inner in node.get("properties", {}).items():
        here = f"{path}.{key}" if path else key
        yield here
        yield from _named(inner, parts, here)
