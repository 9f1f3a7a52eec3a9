"""Every colour of cards, pages and still pictures, once: style sheets are given these, the still draws with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb

from .heat import COLOURS

Colour = tuple[int, int, int]

LIGHT: Mapping[str, str] = {
    "paper": "#faf8f4",
    "sheet": "#fffefb",
    "ink": "#1d1a16",
    "quiet": "#655f57",
    "line": "#e5dfd4",
    "well": "#ece6db",
    "ember": "#ad3f0c",
    "good": "#1b6751",
    "part": "#7f5400",
    "bad": "#a3243c",
    "idle": "#94886f",
    "on": "#fffefb",
}
"""By day, on paper, and on the still picture."""

DARK: Mapping[str, str] = {
    "paper": "#131210",
    "sheet": "#1b1917",
    "ink": "#f2eee7",
    "quiet": "#aca59a",
    "line": "#33302b",
    "well": "#302c28",
    "ember": "#ff9760",
    "good": "#74cbae",
    "part": "#e6b653",
    "bad": "#ff95a1",
    "idle": "#7d7466",
    "on": "#131210",
}
"""By night."""

OVER_PHOTO: Mapping[str, str] = {
    "mark": "#fff",
    "letter": LIGHT["ink"],
    "edge": "#141210",
    "behind": "#000",
    "chosen": DARK["ember"],
}
"""On photographs, which are neither light nor dark: frames, the letters in them, what sets them off, what is chosen."""

STOPS = (0, 26, 50, 76, 100)
"""Per cent of the heat's scale at which the page's gradient has its colours."""


def rgb(colour: str) -> Colour:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def heat_gradient() -> str:
    """The heat's colours, weak to strong, as a gradient of a style sheet."""
    last = len(COLOURS) - 1
    return ", ".join(f"#{bytes(COLOURS[round(at / 100 * last)]).hex()} {at}%" for at in STOPS)


def coloured(style: str) -> str:
    """A style sheet with the names of sets of colours, ``/* light */`` and the like, replaced by the colours."""
    for name, colours in (("light", {**LIGHT, **OVER_PHOTO}), ("dark", DARK), ("print", LIGHT)):
        properties = " ".join(f"--{key}: {colour};" for key, colour in colours.items())
        style = style.replace(f"/* {name} */", properties)
    return style.replace("/* heat */", heat_gradient())


def class_colours(n: int) -> list[Colour]:
    """Colours for so many classes, each far from those before it: hues by the golden angle, two depths in turn."""
    found = []
    for i in range(n):
        light, strong = ((0.56, 0.55), (0.50, 0.27), (0.42, 0.62))[i % 3]
        red, green, blue = hls_to_rgb(0.381966 * i % 1.0, light, strong)
        found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return found


def named_colours(names: Sequence[str]) -> dict[str, str]:
    """Each class with its colour, as a style sheet takes it."""
    return {name: f"#{bytes(colour).hex()}" for name, colour in zip(names, class_colours(len(names)), strict=True)}
