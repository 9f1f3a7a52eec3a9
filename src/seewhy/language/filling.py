"""JSON of a schema, filled in: braces, keys and quotation marks are set, a model writes only what stands between them.

So any text model keeps to a schema, however small it is, and the answer is JSON by construction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from ..errors import InputError

GoOn = Callable[[str, int], tuple[str, int]]
"""JSON so far, tokens at most → what the model would write next, and its tokens."""
_STRING = re.compile(r'(?:[^"\\\n]|\\["/])*')
FEWEST = 4
"""Tokens that a text gets even where the limit is used up."""


def fill(schema: dict[str, Any], go_on: GoOn, max_tokens: int, n_items: int = 10) -> str:
    """Have a model fill in a schema.

    A list goes on as long as the model writes a comma after an item, but not over ``n_items`` or the schema's
    ``maxItems``, not when the limit does not reach for another such item, and not with an item it has already.

    Args:
        schema: of objects, lists and texts; every property is filled in.
        go_on: the model.
        max_tokens: of what the model writes, all texts together; the first item of a list is always completed.
        n_items: of a list, at most.

    Raises:
        InputError: the schema asks for something else.

    Example:
        >>> said = iter(['red", "', ",", "red", ","])
        >>> fill({"type": "array", "items": {"type": "string"}}, lambda text, n: (next(said), 1), 20)
        '["red"]'
    """
    form = _Form(go_on, max_tokens, max(FEWEST, max_tokens // _n_texts(schema)), n_items)
    form.put(schema)
    return form.text


class _Form:
    """What is filled in so far, and how many tokens are left."""

    def __init__(self, go_on: GoOn, left: int, longest: int, n_items: int) -> None:
        self.text = ""
        self._go_on, self._left, self._longest, self._n_items = go_on, left, longest, n_items

    def put(self, schema: dict[str, Any]) -> None:
        kind = schema.get("type")
        if kind == "object":
            for i, (name, inner) in enumerate(schema["properties"].items()):
                self.text += f"{', ' if i else '{'}{json.dumps(name)}: "
                self.put(inner)
            self.text += "}"
        elif kind == "array":
            self._list(schema["items"], min(self._n_items, schema.get("maxItems", self._n_items)))
        elif kind == "string":
            said = _STRING.match(self._write(self.text + '"', max(FEWEST, min(self._left, self._longest))))
            assert said is not None
            self.text += json.dumps(said.group().replace('\\"', '"').strip(), ensure_ascii=False)
        else:
            raise InputError(f"A schema of {kind!r} was given. Objects, lists and texts were expected. Ask otherwise.")

    def _list(self, schema: dict[str, Any], most: int) -> None:
        self.text += "["
        found: list[str] = []
        while len(found) < most:
            before, start, left = self.text, len(self.text), self._left
            if found:
                self.text += ", "
                start += 2
            self.put(schema)
            item, used = self.text[start:], left - self._left
            if item in found:
                self.text = before
                break
            found.append(item)
            if self._left < used or not self._write(self.text, 2).lstrip().startswith(","):
                break
        self.text += "]"

    def _write(self, text: str, most: int) -> str:
        said, n_tokens = self._go_on(text, most)
        self._left -= n_tokens
        return said


def _n_texts(schema: dict[str, Any]) -> int:
    """Texts in the smallest answer."""
    kind = schema.get("type")
    if kind == "object":
        return max(1, sum(map(_n_texts, schema["properties"].values())))
    return _n_texts(schema["items"]) if kind == "array" else 1
