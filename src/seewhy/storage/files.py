"""Reading JSON that people and other programs write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import SeeWhyError


def json_value(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text; whatever is wrong with it is one kind of error."""
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (json.JSONDecodeError, SeeWhyError):  # the second by ``pairs``
        raise
    except ValueError as error:
        raise ValueError("it has a number with too many digits") from error


def json_lines(text: str) -> list[Any]:
    """The values of JSONL; lines end with a newline alone, as texts may hold the other signs that end lines."""
    return [json_value(line) for line in text.split("\n") if line.strip()]
