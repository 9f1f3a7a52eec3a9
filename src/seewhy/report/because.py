"""The small bars under a likeness: what it rests on, for page and still picture."""

from __future__ import annotations

from dataclasses import dataclass

from ..explanation.similar import Like, Likeness
from ..explanation.verdict import Missing
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
        overall: as ``lost``, over many pictures; ``None`` where that was not measured.
        mark: place of its mark, 0…1, on the same scale; 0 where the property is no loss there.
    """

    name: str
    lost: float
    width: float
    overall: float | None = None
    mark: float | None = None


@dataclass(frozen=True)
class Bars:
    """Those of one likeness, with their sentence."""

    sentence: str
    bars: tuple[Bar, ...]


def scale_of(like: Like | Missing) -> float:
    """The largest share lost on the card, on this picture or over all."""
    if isinstance(like, Missing):
        return LEAST_SCALE
    found = [near.because for near in like.neighbours if near.because]
    return max([LEAST_SCALE, *(v for b in found for v in (*b.lost.values(), *(b.overall or {}).values()))])


def bars_of(near: Likeness, scale: float) -> Bars | None:
    """The bars of one likeness, in one order everywhere; ``None`` where none were asked for."""
    if near.because is None:
        return None
    overall = near.because.overall or {}
    bars = tuple(_bar(name, lost, overall.get(name), scale) for name, lost in near.because.lost.items())
    return Bars(near.because.sentence or NOT_COMPARED, bars)


def _bar(name: str, lost: float, overall: float | None, scale: float) -> Bar:
    mark = None if overall is None else min(1.0, max(0.0, overall) / scale)
    return Bar(name, lost, min(1.0, abs(lost) / scale), overall, mark)


def draw_bars(c: Canvas, x: float, y: float, width: float, found: Bars) -> float:
    """On the still picture; returns where it ends."""
    y = c.paragraph(x, y, found.sentence, 15, width, 3, INK) + 1
    for bar in found.bars:
        c.text(x, y, bar.name, 14, QUIET)
        left, room = x + 72, width - 72
        c.panel(left, y - 8, room, 7, 3, WELL)
        if bar.width * room >= 1:
            c.panel(left, y - 8, max(2.0, bar.width * room), 7, 3, EMBER if bar.lost > 0 else IDLE)
        if bar.mark is not None:
            c.draw.rectangle((left + bar.mark * (room - 2), y - 11, left + bar.mark * (room - 2) + 1, y + 1), fill=INK)
        y += 18
    return y
