"""Taking a hallucinated thing out of a text by rules: the item of a list where there is one, else the sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .text_metrics import mentions

_SENTENCE = re.compile(r"\S[^.!?]*(?:[.!?]+|$)")
_JOINT = re.compile(r"(,\s+and\s+|,\s+|\s+and\s+)")


def without(text: str, phrases: Sequence[str]) -> str:
    """The text without what it says of these things.

    In a sentence that lists things ("a cup, a plate and a dog"), only the items that name one go, as long as an item is
    left and the first one, which carries the verb, stays. Otherwise the whole sentence goes: half a statement about a
    thing that is not there would be no better.

    >>> without("There is a red cup, a plate and a dog. The dog sleeps. A cat sits.", ["dog"])
    'There is a red cup and a plate. A cat sits.'
    """
    if not phrases:
        return text
    kept = [_cleaned(sentence, phrases) for sentence in _SENTENCE.findall(text)]
    return " ".join(s for s in kept if s)


def _cleaned(sentence: str, phrases: Sequence[str]) -> str:
    if not any(mentions(sentence, p) for p in phrases):
        return sentence
    body, end = re.fullmatch(r"(.*?)([.!?]*)", sentence, re.DOTALL).groups()  # type: ignore[union-attr]
    parts = _JOINT.split(body)[::2]
    good = [part for part in parts if not any(mentions(part, p) for p in phrases)]
    # An item is a noun with its article; anything else after a comma is a statement of its own.
    items = all(re.match(r"(?:an?|the|two|three|some|several|its|many)\s", part.strip(), re.I) for part in parts[1:])
    if len(parts) < 2 or not items or not good or good[0] is not parts[0]:
        return ""
    joined = good[0] if len(good) == 1 else f"{', '.join(good[:-1])} and {good[-1]}"
    return f"{joined.rstrip()}{end}"
