"""Base class of results that are written as JSON."""

from __future__ import annotations

import types
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, NotRequired, Union, get_args, get_origin, get_type_hints

import numpy as np
from typing_extensions import TypedDict

from .verdict import Level, Verdict


@dataclass(frozen=True)
class Json:
    """Options for writing a field as JSON."""

    key: str = ""
    digits: int = 4
    optional: bool = False
    hidden: bool = False
    inline: bool = False


HIDDEN, OPTIONAL = Json(hidden=True), Json(optional=True)
EXACT, INLINE = Json(digits=17), Json(inline=True)


class Result:
    """A frozen dataclass that is written as JSON, with the properties named in ``computed``."""

    computed: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {}
        kind: Any = type(self)
        for name, how, _ in _written(kind):
            value = getattr(self, name)
            if how.inline:
                data |= {} if value is None else value.to_json()
            elif not (how.optional and (value is None or value in ((), ""))):
                data[how.key or name] = plain(value, how.digits)
        return data

    @classmethod
    def json_type(cls) -> Any:
        kind: Any = cls
        return _output(kind)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
        return handler.generate_schema(cls.json_type())


def plain(value: Any, digits: int = 4) -> Any:
    if isinstance(value, Result):
        return value.to_json()
    if isinstance(value, Verdict):
        return value.level
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [plain(one, digits) for one in value]
    return {k: plain(v, digits) for k, v in value.items()} if isinstance(value, dict) else value


@cache
def _written(cls: Any) -> tuple[tuple[str, Json, Any], ...]:
    """Return the name, the JSON options and the annotation of each field."""
    hints = get_type_hints(cls, include_extras=True)
    rows = [(f.name, hints[f.name]) for f in fields(cls)]
    of = {name: get_type_hints(getattr(cls, name).fget, include_extras=True)["return"] for name in cls.computed}
    rows += of.items()
    how = [next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Json)), Json()) for _, hint in rows]
    return tuple((name, one, hint) for (name, hint), one in zip(rows, how, strict=True) if not one.hidden)


@cache
def _output(cls: Any) -> Any:
    keys: dict[str, Any] = {}
    for name, how, hint in _written(cls):
        kind = _json_type(hint)
        if how.inline:
            inner = next(one for one in get_args(kind) if one is not type(None)).__annotations__
            keys |= {k: v if get_origin(v) is NotRequired else NotRequired[v] for k, v in inner.items()}
        else:
            keys[how.key or name] = NotRequired[kind] if how.optional else kind
    made = TypedDict(cls.__name__, keys)  # type: ignore[misc]
    generated = cls.__doc__.startswith(f"{cls.__name__}(")  # by ``dataclass``, for a class without a docstring
    made.__doc__, made.__module__ = None if generated else cls.__doc__, cls.__module__
    return made


def _json_type(hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        said = tuple(m for m in inner[1:] if not isinstance(m, Json))
        return Annotated[(_json_type(inner[0]), *said)] if said else _json_type(inner[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_json_type, inner))]  # noqa: UP007
    if origin is tuple and inner[-1] is Ellipsis:
        return list[_json_type(inner[0])]  # type: ignore[misc]
    if isinstance(hint, type) and issubclass(hint, Result):
        return hint.json_type()
    return {Verdict: Level, np.ndarray: list[list[float]]}.get(hint, hint) if isinstance(hint, type) else hint
