"""What of the texts of a picture is compared with it: whole texts, their sentences, or either."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Span = Literal["text", "sentence", "both"]
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\s*[\r\n]+\s*")
_ORDINAL = re.compile(r"\W*\d*\W*")


def spans(texts: Sequence[str], of: str = "text") -> tuple[str, ...]:
    """What may be drawn of the texts of a picture; at least one where there is a text.

    A sentence ends with a line, or with a full stop, question or exclamation mark before a space, so that ``2.5 cm``
    is one; a number alone, as in a list, is none.

    Example:
        >>> spans(["1. No effusion. A nodule of 2.5 cm."], "sentence")
        ('No effusion.', 'A nodule of 2.5 cm.')
        >>> spans(["a cat", "A dog. It runs."], "both")
        ('a cat', 'A dog. It runs.', 'A dog.', 'It runs.')
    """
    if of == "text":
        return tuple(texts)
    found: dict[str, None] = {}
    for text in texts:
        parts = [part.strip() for part in _ENDS.split(text) if not _ORDINAL.fullmatch(part)] or [text.strip()]
        if of == "both":
            found[text.strip()] = None
        found |= dict.fromkeys(parts)
    return tuple(found)
