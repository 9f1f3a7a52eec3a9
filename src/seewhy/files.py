"""Reading lines of JSON."""

from __future__ import annotations

import json
from typing import Any


def json_lines(text: str) -> list[Any]:
    """The values of JSONL; lines end with a newline alone, as texts may hold the other signs that end lines.

    Raises:
        JSONDecodeError: a line is no JSON.
    """
    return [json.loads(line) for line in text.split("\n") if line.strip()]
