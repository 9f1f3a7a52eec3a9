"""What verbs answer, as types: from them come the JSON Schemas, the tables of the docs and the checks of what is read.

An output is a ``TypedDict`` or a frozen dataclass whose fields are the JSON's keys; ``Doc`` says what a key means.
It has a name through an entry point of the group ``seewhy.outputs``, as another package's would.
"""

from __future__ import annotations

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
    """The meaning of a key, as in ``Annotated[int, Doc("pictures")]``."""

    text: str

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Any:
        return {**handler(core), "description": self.text}


Count = Annotated[int, Ge(0)]
"""How many."""
Share = Annotated[float, Ge(0), Le(1)]
"""A part or a probability."""


def list_schemas() -> list[str]:
    """Names of the outputs that have a schema.

    Example:
        >>> "explain" in list_schemas(), "study-faithfulness" in list_schemas()
        (True, True)
    """
    return sorted(entry_points(group="seewhy.outputs").names)


@checked
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of an output, with all the parts it refers to.

    Keys may be added to an output, so the schemas allow keys that they do not name.

    Args:
        name: of a verb, ``"explain"`` or ``"study faithfulness"``, or another of :func:`list_schemas`.

    Example:
        >>> of_failures = schema("failure")
        >>> of_failures["required"], of_failures["properties"]["image"]["type"]
        (['image', 'error'], 'string')
    """
    output = name.strip().replace(" ", "-")
    if output not in list_schemas():
        raise UnknownNameError("JSON output", name, list_schemas())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema_of(output)}


@cache
def _schema_of(output: str) -> dict[str, Any]:
    (point,) = entry_points(group="seewhy.outputs", name=output)
    return _untitled(_adapter(point.load()).json_schema(mode="serialization"))


def _untitled(node: Any) -> Any:
    """Without the titles that repeat the keys."""
    if isinstance(node, list):
        return [_untitled(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    kept = {k: v for k, v in node.items() if k != "title" or isinstance(v, dict)}
    return {k: _untitled(v) for k, v in kept.items()}


def restore(kind: type[T], data: Any, what: str) -> T:
    """Build a typed result from its JSON, and check every field."""
    from pydantic import ValidationError

    wanted: Any = kind
    try:
        made: T = _adapter(wanted).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{what} has {place}: {first['msg']}. Expected a file that SeeWhy wrote. Make it again."
        ) from None
    return made


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
