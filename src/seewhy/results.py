"""JSON Schemas of the outputs, and checks of JSON against them.

An output is a ``TypedDict`` or a frozen dataclass whose fields are the JSON keys, described by ``Doc``. Its name is an
entry point of the group ``seewhy.outputs``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le

from .arguments import checked
from .errors import DataError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Doc:
    """The description of a JSON key, as in ``Annotated[int, Doc("pictures")]``."""

    text: str

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Any:
        return {**handler(core), "description": self.text}


Count = Annotated[int, Ge(0)]
"""How many."""
Share = Annotated[float, Ge(0), Le(1)]
"""A fraction or a probability."""


def list_schemas() -> list[str]:
    """Return the names of the outputs that have a schema.

    Example:
        >>> "explain" in list_schemas(), "study-faithfulness" in list_schemas()
        (True, True)
    """
    return sorted(entry_points(group="seewhy.outputs").names)


@checked
def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an output.

    Later versions may add keys, so the schema allows unknown keys.

    Args:
        name: name of a command, such as ``"explain"`` or ``"study faithfulness"``, or another name that
            :func:`list_schemas` returns.

    Example:
        >>> of_failures = schema("failure")
        >>> of_failures["required"], of_failures["properties"]["image"]["type"]
        (['image', 'error'], 'string')
    """
    output = name.strip().replace(" ", "-")
    if output not in list_schemas():
        raise UnknownNameError("JSON output", name, list_schemas())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **copy.deepcopy(_schema_of(output))}


@cache
def _schema_of(output: str) -> dict[str, Any]:
    (point,) = entry_points(group="seewhy.outputs", name=output)
    return _untitled(adapter(point.load()).json_schema(mode="serialization"))


def _untitled(node: Any) -> Any:
    """Return a schema without titles, which repeat the keys."""
    if isinstance(node, list):
        return [_untitled(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    kept = {k: v for k, v in node.items() if k != "title" or isinstance(v, dict)}
    return {k: _untitled(v) for k, v in kept.items()}


def restore(kind: type[T], data: Any, what: str) -> T:
    """Build a typed result from JSON, and check every field."""
    from pydantic import ValidationError

    wanted: Any = kind
    try:
        made: T = adapter(wanted).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{what} was not written by SeeWhy or is damaged ({place}: {first['msg']}). Create it again."
        ) from None
    return made


@cache
def adapter(kind: Any) -> Any:
    """Return pydantic's adapter of a type, which checks data and describes the type as a JSON Schema."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
