"""Colours of pages and still pictures, and the heat-map overlay.

The lightness of the heat colours is linear in OKLab, so equal steps look equal.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from colorsys import hls_to_rgb
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

Colour = tuple[int, int, int]
N_COLOURS = 256

_LIGHTNESS = (0.38, 0.95)
_HUE_DEGREES = (-52.0, 104.0)
_CHROMA = ((0.0, 0.12), (0.30, 0.19), (0.60, 0.185), (1.0, 0.13))

_LMS_FROM_OKLAB = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _colours() -> np.ndarray:
    t = np.linspace(0.0, 1.0, N_COLOURS)
    lightness = _LIGHTNESS[0] + (_LIGHTNESS[1] - _LIGHTNESS[0]) * t
    hue = np.radians(_HUE_DEGREES[0] + (_HUE_DEGREES[1] - _HUE_DEGREES[0]) * t)
    chroma = np.interp(t, *np.array(_CHROMA).T)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    linear = ((lab @ _LMS_FROM_OKLAB.T) ** 3 @ _RGB_FROM_LMS.T).clip(0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (srgb * 255).round().astype(np.uint8)


COLOURS: np.ndarray = _colours()
"""The colours of heat: ``(256, 3)`` uint8, coldest first."""

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
LIGHT, DARK, OVER_PHOTO, MAP = (_TABLES[name] for name in ("light", "dark", "over_photo", "map"))
"""Colours by name; the file says what each table is for."""

STOPS = (0, 26, 50, 76, 100)
"""Stops of the CSS gradient, in per cent of the heat scale."""


def rgb(colour: str) -> Colour:
    red, green, blue, *_ = ImageColor.getrgb(colour)
    return red, green, blue


def heat_gradient() -> str:
    """Return the heat colours as a CSS gradient."""
    last = len(COLOURS) - 1
    return ", ".join(f"#{bytes(COLOURS[round(at / 100 * last)]).hex()} {at}%" for at in STOPS)


def coloured(style: str) -> str:
    """Replace placeholders such as ``/* light */`` in a style sheet by colours."""
    for name, colours in (("light", {**LIGHT, **OVER_PHOTO}), ("dark", DARK), ("print", LIGHT)):
        properties = " ".join(f"--{key}: {colour};" for key, colour in colours.items())
        style = style.replace(f"/* {name} */", properties)
    return style.replace("/* heat */", heat_gradient())


def class_colours(n: int) -> list[Colour]:
    """Return ``n`` distinct colours, with hues spaced by the golden angle."""
    found = []
    for i in range(n):
        light, strong = ((0.56, 0.55), (0.50, 0.27), (0.42, 0.62))[i % 3]
        red, green, blue = hls_to_rgb(0.381966 * i % 1.0, light, strong)
        found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return found


def named_colours(names: Sequence[str]) -> dict[str, str]:
    return {name: f"#{bytes(colour).hex()}" for name, colour in zip(names, class_colours(len(names)), strict=True)}


def positive_part(heat: np.ndarray) -> np.ndarray | None:
    """Return the positive part of a map, scaled to 0…1; ``None`` if it is empty."""
    positive = np.nan_to_num(np.asarray(heat, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    peak = float(positive.max(initial=0.0))
    return positive / peak if peak > 0 else None


def upsample(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Upsample bilinearly, as torch does with ``align_corners=False``."""
    coarse = Image.fromarray(values.astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def overlay(heat: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Return the map as RGBA uint8 ``(height, width, 4)``; higher values are more opaque."""
    scaled = positive_part(heat)
    if scaled is None:
        return None
    warm = upsample(scaled, height, width).clip(0.0, 1.0)
    opacity = np.sqrt(warm * (2.0 - warm)) * warm**0.5
    colour = COLOURS[(warm * (N_COLOURS - 1)).round().astype(int)]
    return np.dstack([colour, (opacity * 255).round().astype(np.uint8)])


def blend(view: np.ndarray, heat: np.ndarray, strength: float = 0.75) -> np.ndarray:
    """Blend the heat-map overlay into a picture, uint8 ``(h, w, 3)``."""
    layer = overlay(heat, view.shape[0], view.shape[1])
    if layer is None:
        return view
    alpha = layer[..., 3:].astype(np.float64) / 255 * strength
    return (view * (1 - alpha) + layer[..., :3] * alpha).round().astype(np.uint8)
