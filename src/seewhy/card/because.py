"""The small bars under a likeness: what it rests on, for page and still picture."""

from __future__ import annotations

from dataclasses import dataclass

from ..explanation import Like, Likeness, Missing
from .canvas import EMBER, IDLE, INK, QUIET, WELL, Canvas

LEAST_SCALE = 0.1
"""The share of the similarity that fills a bar when no property costs more."""
NOT_COMPARED = "not to be compared"


@dataclass(frozen=True)
class Bar:
    """One property.

    Attributes:
        name: of the property.
        lost: part of the similarity lost when it is changed; negative where it is gained.
        width: of the bar, 0…1, on one scale for the whole card.
    """

    name: str
    lost: float
    width: float


@dataclass(frozen=True)
class Bars:
    """Those of one likeness, with their sentence."""

    sentence: str
    bars: tuple[Bar, ...]


def scale_of(like: Like | Missing) -> float:
    """The largest share lost on the card."""
    if isinstance(like, Missing):
        return LEAST_SCALE
    return max([LEAST_SCALE, *(v for near in like.neighbours if near.because for v in near.because.lost.values())])


def bars_of(near: Likeness, scale: float) -> Bars | None:
    """The bars of one likeness, in one order everywhere; ``None`` where none were asked for."""
    if near.because is None:
        return None
    bars = tuple(Bar(name, lost, min(1.0, abs(lost) / scale)) for name, lost in near.because.lost.items())
    return Bars(near.because.sentence or NOT_COMPARED, bars)


def draw_bars(c: Canvas, x: float, y: float, width: float, found: Bars) -> float:
    """On the still picture; returns where it ends."""
    y = c.paragraph(x, y, found.sentence, 15, width, 3, INK) + 1
    for bar in found.bars:
        c.text(x, y, bar.name, 14, QUIET)
        left, room = x + 72, width - 72
        c.panel(left, y - 8, room, 7, 3, WELL)
        if bar.width * room >= 1:
            c.panel(left, y - 8, max(2.0, bar.width * room), 7, 3, EMBER if bar.lost > 0 else IDLE)
        y += 18
    return y
