"""Drawn pictures whose attributes are known, so that a true text about each can be written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (205, 45, 40),
    "orange": (235, 145, 30),
    "yellow": (230, 215, 60),
    "green": (60, 150, 60),
    "blue": (50, 90, 205),
    "purple": (135, 60, 165),
}
GROUNDS = {"black": (25, 25, 25), "grey": (125, 125, 125), "white": (235, 235, 235)}
PLACES = {"left": -1, "middle": 0, "right": 1}
CLASSES = tuple((shape, filled) for shape in SHAPES for filled in (True, False))
"""A class is a shape, filled or hollow."""


@dataclass(frozen=True)
class Thing:
    """Everything a text can say of a picture.

    Attributes:
        label: index of its class.
        colour: of ``COLOURS``.
        ground: of ``GROUNDS``.
        place: of ``PLACES``.
        large: whether it is.
    """

    label: int
    colour: str
    ground: str
    place: str
    large: bool

    def text(self) -> str:
        """A true sentence about this picture."""
        shape, filled = CLASSES[self.label]
        size, form = ("large" if self.large else "small"), ("filled" if filled else "hollow")
        return f"a {size} {self.colour} {form} {shape} in the {self.place} of a {self.ground} ground"


def anything(label: int, rng: np.random.Generator, colours: tuple[str, ...] = tuple(COLOURS)) -> Thing:
    """A picture of the class, all else by chance."""
    colour, ground, place = (str(rng.choice(options)) for options in (colours, tuple(GROUNDS), tuple(PLACES)))
    return Thing(label, colour, ground, place, bool(rng.integers(2)))


def draw(thing: Thing, rng: np.random.Generator, side: int, noise: float) -> np.ndarray:
    """The picture, uint8 ``(side, side, 3)``, with grain of this standard deviation in grey levels."""
    shape, filled = CLASSES[thing.label]
    scale = 4
    canvas = Image.new("RGB", (side * scale, side * scale), GROUNDS[thing.ground])
    radius = side * scale * (rng.uniform(0.2, 0.25) if thing.large else rng.uniform(0.11, 0.15))
    x = side * scale * (0.5 + 0.22 * PLACES[thing.place] + rng.uniform(-0.05, 0.05))
    y = side * scale * rng.uniform(0.3, 0.7)
    turn = rng.uniform(0, 2 * math.pi)
    colour = tuple(int(v + rng.uniform(-20, 20)) for v in COLOURS[thing.colour])
    width = max(int(0.3 * radius), 1)
    pen = ImageDraw.Draw(canvas)
    if shape == "circle":
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=colour if filled else None, outline=colour, width=width)
    else:
        n = {"square": 4, "triangle": 3, "star": 10}[shape]
        lengths = [radius * (0.45 if shape == "star" and i % 2 else 1.1) for i in range(n)]
        angles = [turn + 2 * math.pi * i / n for i in range(n)]
        corners = [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(lengths, angles, strict=True)]
        if filled:
            pen.polygon(corners, fill=colour)
        else:
            pen.line([*corners, *corners[:2]], fill=colour, width=width, joint="curve")
    pixels = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float64)
    return np.rint((pixels + rng.normal(0, noise, pixels.shape)).clip(0, 255)).astype(np.uint8)
