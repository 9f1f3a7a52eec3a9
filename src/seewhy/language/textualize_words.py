"""Numbers in words: where, how large, how near; never a figure (Image Textualization's rules, in our own wording)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..types import FractionBox
from .experts import FoundObject

SMALL, LARGE = 0.02, 0.4
"""Sizes are said only when a thing covers less than the first or more than the second part of the picture."""
NEAR, FAR = 0.75, 0.25
"""Of the depths of the listed objects, scaled to 0…1."""


def position_in_words(box: FractionBox) -> str:
    """Where the middle of a box lies, by thirds.

    >>> position_in_words((0.0, 0.0, 0.2, 0.2)), position_in_words((0.4, 0.3, 0.6, 0.7))
    ('in the upper left', 'in the middle')
    """
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    if across and down:
        return f"in the {down} {across}"
    if across:
        return f"on the {across}"
    return {"upper": "at the top", "lower": "at the bottom", "": "in the middle"}[down]


def size_in_words(size: float | None) -> str:
    """Only what is very small or very large is worth a word.

    >>> size_in_words(0.01), size_in_words(0.1), size_in_words(0.5)
    ('very small', '', 'very large')
    """
    if size is None or SMALL <= size <= LARGE:
        return ""
    return "very small" if size < SMALL else "very large"


def depth_in_words(depth: float | None) -> str:
    """How near a thing is among those listed; ``depth`` is scaled to 0…1.

    >>> depth_in_words(0.9), depth_in_words(0.5), depth_in_words(None)
    ('close to the viewer', '', '')
    """
    if depth is None or FAR < depth < NEAR:
        return ""
    return "close to the viewer" if depth >= NEAR else "far in the background"


def scaled_depths(found: Sequence[FoundObject]) -> list[FoundObject]:
    """Depths scaled to 0…1 over the listed objects, two decimals; none where all are equal, which says nothing.

    The nearest is 1 even when everything is far: depth is relative within a picture.
    """
    depths = [o.depth for o in found if o.depth is not None]
    if not depths or max(depths) - min(depths) <= 0:
        return [replace(o, depth=None) for o in found]
    low, span = min(depths), max(depths) - min(depths)
    return [o if o.depth is None else replace(o, depth=round((o.depth - low) / span, 2)) for o in found]


def article(words: str) -> str:
    """The words with *a* or *an*.

    >>> article("orange cup"), article("red cup")
    ('an orange cup', 'a red cup')
    """
    return f"{'an' if words[:1].casefold() in 'aeiou' else 'a'} {words}"


def named(found: FoundObject) -> str:
    """A thing with its size and colour; a colour that its name already says is not said again."""
    colour = "" if found.colour.casefold() in found.label.casefold() else found.colour
    return " ".join(part for part in (size_in_words(found.size), colour, found.label.replace("_", " ")) if part)


def sentence_for(found: FoundObject) -> str:
    """One sentence on one thing.

    >>> sentence_for(FoundObject("cup", (0.0, 0.7, 0.2, 1.0), colour="red", size=0.01, depth=1.0))
    'There is a very small red cup in the lower left, close to the viewer.'
    """
    near = depth_in_words(found.depth)
    return f"There is {article(named(found))} {position_in_words(found.box)}{f', {near}' if near else ''}."
