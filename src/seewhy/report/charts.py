"""Charts as shapes, for SVG and still pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from ..printable import percent
from .blocks import Chart, Colour, text_of

COLOURS: tuple[Colour, ...] = ("good", "ember", "part", "bad", "ink", "idle")
"""Colours of series, used cyclically."""


class Shape(NamedTuple):
    """A shape; ``place`` is x, y, x, y, … for lines and areas, x, y, radius for a dot, and x, y for text."""

    kind: Literal["area", "line", "dot", "text"]
    place: tuple[float, ...]
    colour: Colour = "quiet"
    text: str = ""
    anchor: Literal["start", "middle", "end"] = "middle"
    dashed: bool = False
    width: float = 2.0

    @property
    def svg_points(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in zip(self.place[::2], self.place[1::2], strict=True))


class Drawing(NamedTuple):
    width: float
    height: float
    shapes: list[Shape]
    title: str


def colour_of(place: int) -> Colour:
    """Return the colour of the series at this position."""
    return COLOURS[place % len(COLOURS)]


def ticks(low: float, high: float) -> list[float]:
    every = [m * 10**e for e in range(10) for m in (1, 2, 5)]
    round_ones: list[float] = [n for n in every if low <= n <= high]
    return round_ones if len(round_ones) < 9 else [n for n in round_ones if str(n)[0] == "1"]


def steps(low: float, high: float) -> list[float]:
    span = (high - low) or 1.0
    scale = 10.0 ** math.floor(math.log10(span))
    step = next(s * scale for s in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5) if span / (s * scale) <= 5.01)
    first, last = math.ceil(round(low / step, 6)), math.floor(round(high / step, 6))
    return [round(k * step, 10) for k in range(first, last + 1)]


def _percent(value: float) -> str:
    return percent(value, "\u202f") if value else "0"


def _range(values: Sequence[float], given: tuple[float, float] | None, plain: bool) -> tuple[float, float]:
    if given is not None:
        return given
    low, high = min(values, default=0.0), max(values, default=1.0)
    if plain:
        return (low, high) if high > low else (low - 0.5, low + 0.5)
    low, high = math.floor(low * 10) / 10, math.ceil(high * 10) / 10
    return low, max(high, low + 0.1)


def _scale(span: tuple[float, float], start: float, end: float, how: Callable[[float], float]) -> Callable:
    low, high = how(span[0]), how(span[1])

    def place(value: float) -> float:
        part = (how(value) - low) / ((high - low) or 1.0)
        return round(start + min(max(part, 0.0), 1.0) * (end - start), 1)

    return place


def draw(c: Chart) -> Drawing:
    width, height = (340.0, 180.0) if c.small else (640.0, 320.0)
    left, right, top, bottom = (44.0, 6.0, 10.0, 24.0) if c.small else (56.0, 12.0, 22.0 if c.upwards else 12.0, 42.0)
    along = [*((x, y) for curve in c.curves for x, y in curve.points), *((d.x, d.y) for d in c.dots)]
    xs = [x for x, _ in along] + [row[0] for row in c.band] + list(c.edges)
    ys = [y for _, y in along] + [v for row in c.band for v in row[1:]] + [v for v, _ in c.levels]
    x_span, y_span = _range(xs, c.x_range, True), _range(ys, c.y_range, c.plain_y)
    x = _scale(x_span, left, width - right, math.log if c.log else float)
    y = _scale(y_span, height - bottom, top, float)
    foot, shapes = height - bottom, []
    for value in y_span if c.small else steps(*y_span):
        shapes.append(Shape("line", (left, y(value), width - right, y(value)), "line", width=1))
        name = text_of(value) if c.plain_y else _percent(value)
        shapes.append(Shape("text", (left - 6, y(value) + 4), text=name, anchor="end"))
    for value in () if c.small else ticks(*x_span) if c.log else steps(*x_span):
        plain = f"{value:,g}" if c.log or c.plain_x else _percent(value)
        shapes.append(Shape("text", (x(value), foot + 17), text=plain))
    if c.across:
        anchor: Any = "end" if c.small else "middle"
        at = width - right if c.small else (left + width - right) / 2
        shapes.append(Shape("text", (at, height - 4), text=c.across, anchor=anchor))
    if c.upwards:
        shapes.append(Shape("text", (left, 10), text=c.upwards, anchor="start"))
    if c.band:
        upper = [v for row in c.band for v in (x(row[0]), y(row[2]))]
        lower = [v for row in reversed(c.band) for v in (x(row[0]), y(row[1]))]
        shapes.append(Shape("area", (*upper, *lower), c.curves[0].colour if c.curves else "good"))
    shapes += [Shape("line", (x(e), top, x(e), foot), "quiet", dashed=True, width=1) for e in c.edges]
    shapes += [Shape("line", (left, y(v), width - right, y(v)), colour, width=1.5) for v, colour in c.levels]
    for curve in reversed(c.curves):
        place = tuple(v for a, b in curve.points for v in (x(a), y(b)))
        if len(place) > 2:
            shapes.append(Shape("line", place, curve.colour, curve.name, dashed=curve.dashed))
    shapes += [Shape("dot", (x(d.x), y(d.y), d.size), d.colour, d.title) for d in c.dots]
    return Drawing(width, height, shapes, c.alt or c.title)
