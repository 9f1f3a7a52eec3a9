"""How hard a text is to read: Flesch and Kincaid's grade, by estimated syllables.

textstat is not used: its releases after 0.7.4 download word lists when they run, and 0.7.4 no longer changes. On help
and on what commands answer, the estimate is 1.3 and 1.5 grades above the mean of textstat: a limit here is stricter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any


def syllables(word: str) -> int:
    """An estimate: groups of vowels, less a silent e."""
    word = word.lower()
    found = len(re.findall(r"[aeiouy]+", word))
    return max(1, found - (word.endswith("e") and not word.endswith(("le", "ee")) and found > 1))


def grade(sentences: Sequence[str]) -> float:
    """Numbers and names count as any word."""
    words = [word for sentence in sentences for word in re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", sentence)]
    return 0.39 * len(words) / len(sentences) + 11.8 * sum(map(syllables, words)) / len(words) - 15.59


def sentences_of(text: str) -> list[str]:
    """What is longer than a label; a colon and a semicolon end a sentence, too."""
    parts = re.split(r"(?<=[.!?:;])\s+|\n+", text)
    return [part for part in parts if len(re.findall(r"[^\W\d_]+", part)) > 2]


def values(data: Any, keys: frozenset[str] | None = None, key: str = "") -> Iterator[str]:
    """Every text of nested data, or of those keys."""
    if isinstance(data, str):
        if keys is None or key in keys:
            yield data
    elif isinstance(data, dict):
        for name, row in data.items():
            yield from values(row, keys, name)
    elif isinstance(data, list):
        for row in data:
            yield from values(row, keys, key)
