"""Which objects, and which of their attributes, a text on the whole picture leaves out.

ImageInWords' released texts now and then drop an object that the first task lists, so the page says so while writing.
There is no tagger here: an object counts as named when a word of its label stands in the text, plural or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .records import BoxedObject

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SMALL = """
a an and another are as at be been being both but by can each for from has have her his if in into is it its
more most near no not of off on one onto or other out over own same she some such than that the their them then
there these they this those through to too two three under up very was were which while who whose with within
without he we you also about above across after along around before behind below beneath beside between down
during inside outside toward towards upon where when
"""
SMALL_WORDS = frozenset(_SMALL.split())
"""Words that name nothing."""


def stem(word: str) -> str:
    """A word without a plural's ending, so that *berries* and *berry* meet.

    >>> [stem(w) for w in ("Berries", "boxes", "leaves", "cups", "glass", "bus")]
    ['berry', 'box', 'leaf', 'cup', 'glass', 'bus']
    """
    word = word.casefold()
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ves") and len(word) > 4:
        return word[:-3] + "f"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def naming_words(text: str) -> list[str]:
    """Words that name or qualify something, stemmed, each once, in order."""
    return list(dict.fromkeys(stem(w) for w in _WORD.findall(text) if w.casefold() not in SMALL_WORDS and len(w) > 1))


def head_of(label: str) -> str:
    """The noun of a label: its last word before *of*, *with*, *in* and the like.

    >>> head_of("two cups of tea"), head_of("Bumble bee"), head_of("")
    ('cup', 'bee', '')
    """
    words = _WORD.findall(label)
    for i, word in enumerate(words):
        if i and word.casefold() in SMALL_WORDS and word.casefold() not in ("a", "an", "and", "the"):
            words = words[:i]
            break
    return stem(words[-1]) if words else ""


@dataclass(frozen=True)
class Covered:
    """What a text says of one object.

    Attributes:
        id, label: the object's.
        named: whether the text has its head noun.
        missing: words of its label and description that the text lacks.
        share: part of those words that the text has, 0…1; 1 where there are none.
    """

    id: str
    label: str
    named: bool
    missing: tuple[str, ...]
    share: float


def coverage(objects: Sequence[BoxedObject], text: str) -> tuple[Covered, ...]:
    """Every object against the text, in the objects' order."""
    there = set(naming_words(text))
    rows = []
    for o in objects:
        words = naming_words(f"{o.label} {o.description}")
        missing = tuple(w for w in words if w not in there)
        head = head_of(o.label) or (words[0] if words else "")
        share = 1 - len(missing) / len(words) if words else 1.0
        rows.append(Covered(o.id, o.label, not head or head in there, missing, round(share, 4)))
    return tuple(rows)


def left_out(objects: Sequence[BoxedObject], text: str) -> tuple[str, ...]:
    """Labels of the objects that the text does not name."""
    return tuple(c.label or "(no label)" for c in coverage(objects, text) if not c.named)
