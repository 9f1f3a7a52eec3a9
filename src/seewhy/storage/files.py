"""Reading JSON that people and other programs write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import SeeWhyError


def json_value(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text; whatever is wrong with it is one kind of error.

    Args:
        text: what was read.
        pairs: makes something else than a dictionary of an object's pairs.

    Raises:
        ValueError: it is none, has a number of thousands of digits, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (json.JSONDecodeError, SeeWhyError):  # the second by ``pairs``
        raise
    except ValueError as error:
        raise ValueError("it has a number with too many digits") from error


def json_lines(text: str) -> list[Any]:
    """The values of JSONL; lines end with a newline alone, as texts may hold the other signs that end lines.

    Raises:
        ValueError: a line is no JSON.
    """
    return [json_value(line) for line in text.split("\n") if line.strip()]
