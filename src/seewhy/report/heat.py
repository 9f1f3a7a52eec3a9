"""From a signed, low-resolution map to colours over a photograph.

They run on a straight line of perceived lightness (OKLab): equal steps of heat look equal, also to colour-blind eyes.
"""

from __future__ import annotations

import numpy as np

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
"""``(256, 3)`` uint8, coldest first."""


def positive_part(heat: np.ndarray) -> np.ndarray | None:
    """What speaks for the target, scaled to 0…1, or None when nothing does."""
    positive = np.nan_to_num(np.asarray(heat, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    peak = float(positive.max(initial=0.0))
    return positive / peak if peak > 0 else None


def upsample(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, pixel centres at ``(i + 0.5) / n``: the same as torch with ``align_corners=False``."""
    rows = _weights(values.shape[0], height)
    columns = _weights(values.shape[1], width)
    return rows @ values @ columns.T


def _weights(n_from: int, n_to: int) -> np.ndarray:
    """``(n_to, n_from)``: how much each old row counts in each new one."""
    centre = ((np.arange(n_to) + 0.5) * n_from / n_to - 0.5).clip(min=0.0)
    low = np.minimum(centre.astype(int), n_from - 1)
    high = np.minimum(low + 1, n_from - 1)
    weights = np.zeros((n_to, n_from))
    index = np.arange(n_to)
    np.add.at(weights, (index, low), 1.0 - (centre - low))
    np.add.at(weights, (index, high), centre - low)
    return weights


def overlay(heat: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """The map as uint8 ``(height, width, 4)``; the hotter, the more opaque."""
    scaled = positive_part(heat)
    if scaled is None:
        return None
    warm = upsample(scaled, height, width).clip(0.0, 1.0)
    opacity = np.sqrt(warm * (2.0 - warm)) * warm**0.5
    colour = COLOURS[(warm * (N_COLOURS - 1)).round().astype(int)]
    return np.dstack([colour, (opacity * 255).round().astype(np.uint8)])


def blend(view: np.ndarray, heat: np.ndarray, strength: float = 0.75) -> np.ndarray:
    """The overlay laid on a picture: uint8 ``(h, w, 3)``; the picture itself when the map is zero."""
    layer = overlay(heat, view.shape[0], view.shape[1])
    if layer is None:
        return view
    alpha = layer[..., 3:].astype(np.float64) / 255 * strength
    return (view * (1 - alpha) + layer[..., :3] * alpha).round().astype(np.uint8)
