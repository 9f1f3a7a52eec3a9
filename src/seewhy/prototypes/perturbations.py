"""Changes of hue, saturation, contrast, brightness, texture and shape of a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from ..errors import InputError

PROPERTIES = ("hue", "saturation", "contrast", "brightness", "texture", "shape")
"""Names of the properties, in the order of all results."""

Pixels = UInt8[np.ndarray, "h w 3"]


def coloured(picture: Pixels, name: str, amount: float) -> Pixels:
    """Change hue, saturation, contrast or brightness as the authors' colour jitter does.

    For hue, ``amount`` is the rotation as a fraction of the colour circle, −0.5 to 0.5. For the other properties,
    ``amount`` is the weight of the picture in a blend with a grey version (saturation), the mean (contrast) or black
    (brightness).
    """
    from torchvision.transforms import functional

    adjust: Callable[[Any, float], Any] = getattr(functional, f"adjust_{name}")
    return np.asarray(adjust(Image.fromarray(picture), amount))


def warp(picture: Pixels, amplitude: float = 4.0, frequency: float = 0.05) -> Pixels:
    """Shift row ``i`` right, then column ``i`` down, by ``int(amplitude · sin(π · frequency · i))`` pixels; pixels that
    leave at one side enter at the other.
    """
    (height, width), rows, columns = picture.shape[:2], *map(np.arange, picture.shape[:2])
    across, down = (np.trunc(amplitude * np.sin(np.pi * i * frequency)).astype(np.int64) for i in (rows, columns))
    rolled = picture[rows[:, None], (columns[None] - across[:, None]) % width]
    return rolled[(rows[:, None] - down[None]) % height, columns[None]]


def picture_change(before: Pixels, after: Pixels) -> float:
    """Return the root mean squared difference over all pixels and channels, 0 to 255."""
    return float(np.sqrt(np.square(before.astype(np.float32) - after).mean()))


_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.950456, 1.0, 1.088754])
_BEND = 0.008856
_Channels = Float32[np.ndarray, "c h w"]


def denoise(picture: Pixels, strength: float = 4.0, *, patch: int = 7, search: int = 21) -> Pixels:
    """Remove texture by non-local means (Buades, Coll & Morel 2005).

    Each pixel becomes a weighted mean of the pixels around it:

        weight = exp(−d² / (C · strength²))

    - ``d²``: the squared difference between the patches around the two pixels, summed over channels and averaged over
      the patch.
    - ``C``: the number of channels.

    As in OpenCV's ``fastNlMeansDenoisingColored``, lightness and colour have separate weights in CIE Lab. Unlike
    OpenCV, Lab is not rounded and small weights are not dropped.

    Example:
        >>> flat = np.full((8, 8, 3), 90, np.uint8)
        >>> int(denoise(flat).min()), int(denoise(flat).max())
        (90, 90)
    """
    lab = _to_lab(picture)
    parts = [non_local_mean(lab[:1], strength, patch, search), non_local_mean(lab[1:], strength, patch, search)]
    return _from_lab(np.concatenate(parts))


def non_local_mean(channels: _Channels, strength: float, patch: int = 7, search: int = 21) -> _Channels:
    """Compute non-local means with mirrored borders."""
    n_channels, height, width = channels.shape
    reach, half = search // 2, patch // 2
    wide = np.pad(channels, ((0, 0), (reach + half,) * 2, (reach + half,) * 2), mode="reflect")
    total, weights = channels.copy(), np.ones_like(channels[0])
    scale = np.float32(-1 / (patch**2 * n_channels * strength**2))
    for down in range(reach + 1):
        for right in range(-reach if down else 1, reach + 1):
            # Pairs of pixels with this offset that lie inside the picture.
            left, span = max(0, right), width + abs(right)
            y, x = reach - down, reach - left
            here = wide[:, y : y + height + down + 2 * half, x : x + span + 2 * half]
            there = wide[:, reach : reach + height + down + 2 * half, x + right : x + right + span + 2 * half]
            distance = here - there
            distance *= distance
            weight = _box_sum(distance.sum(0) if n_channels > 1 else distance[0], patch)
            weight *= scale
            # Below exp(−80) numbers become denormal, which a processor adds ten times slower.
            np.exp(np.maximum(weight, -80, out=weight), out=weight)
            inner = reach + half
            for sign, part in (
                (1, weight[down:, left : left + width]),
                (-1, weight[:height, left - right : left - right + width]),
            ):
                y, x = inner + sign * down, inner + sign * right
                total += wide[:, y : y + height, x : x + width] * part
                weights += part
    total /= weights
    return total


def _box_sum(values: Float32[np.ndarray, "h w"], side: int) -> Float32[np.ndarray, "h w"]:
    for _ in range(2):
        length = len(values) - side + 1
        run, size, at, left = values, 1, 0, side
        found = np.zeros((length, values.shape[1]), np.float32)
        while left:
            if left & 1:
                found += run[at : at + length]
                at += size
            left >>= 1
            if left:
                run, size = run[: len(run) - size] + run[size:], size * 2
        values = found.T
    return values


def _to_lab(picture: Pixels) -> _Channels:
    """Convert to CIE Lab with L scaled to 0…255."""
    x, y, z = (
        np.einsum("ij,hwj->ihw", _TO_XYZ.astype(np.float32), picture / np.float32(255))
        / _WHITE.astype(np.float32)[:, None, None]
    )
    fx, fy, fz = (np.where(v > _BEND, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    lightness = np.where(y > _BEND, 116 * fy - 16, 903.3 * y)
    return np.stack([lightness * 2.55, 500 * (fx - fy), 200 * (fy - fz)]).astype(np.float32)


def _from_lab(lab: _Channels) -> Pixels:
    lightness = lab[0] / 2.55
    fy = np.where(lightness > 903.3 * _BEND, (lightness + 16) / 116, 7.787 * lightness / 903.3 + 16 / 116)
    f = np.stack([lab[1] / 500 + fy, fy, fy - lab[2] / 200])
    xyz = np.where(f > 7.787 * _BEND + 16 / 116, f**3, (f - 16 / 116) / 7.787) * _WHITE[:, None, None]
    rgb = np.einsum("ij,jhw->hwi", np.linalg.inv(_TO_XYZ), xyz)
    return np.rint(rgb * 255).clip(0, 255).astype(np.uint8)


class Changes(ABC):
    """Base class of sets of changes with their strengths.

    Class attributes:
        name: name on the command line.
        commensurable: whether influences of different properties can be compared.
        on_view: whether the changes apply to the network's input instead of the picture before resizing.
    """

    name: ClassVar[str]
    commensurable: ClassVar[bool]
    on_view: ClassVar[bool]

    def __call__(self, picture: Pixels) -> tuple[Pixels, ...]:
        """Return a changed copy for each of :data:`PROPERTIES`."""
        return tuple(self.change(picture, name) for name in PROPERTIES)

    @abstractmethod
    def change(self, picture: Pixels, name: str) -> Pixels:
        """Return the picture with one property changed."""


@dataclass(frozen=True)
class PaperChanges(Changes):
    """The authors' changes: they have fixed strengths, and apply to the picture before resizing.

    Args:
        hue: rotation as a fraction of the colour circle, −0.5 to 0.5.
        saturation: saturation factor.
        contrast: contrast factor.
        brightness: brightness factor; the paper gives none, so this is the value in the authors' code.
        texture: ``h`` of the non-local means.
        amplitude: amplitude of the warp, in pixels of the picture.
        frequency: frequency of the warp, whose period is ``2 / frequency`` pixels.
        longest: longest side in pixels; larger pictures are first reduced to it. The default is the largest side in
            CUB, the data set for which the strengths were chosen. ``None`` reduces no picture.
    """

    name: ClassVar[str] = "paper"
    commensurable: ClassVar[bool] = False
    on_view: ClassVar[bool] = False

    hue: float = 0.1
    saturation: float = 0.7
    contrast: float = 0.45
    brightness: float = 0.8
    texture: float = 4.0
    amplitude: float = 4.0
    frequency: float = 0.05
    longest: int | None = 500

    def change(self, picture: Pixels, name: str) -> Pixels:
        if name == "texture":
            return denoise(picture, self.texture)
        if name == "shape":
            return warp(picture, self.amplitude, self.frequency)
        return coloured(picture, name, getattr(self, name))


@dataclass(frozen=True)
class EqualChanges(Changes):
    """Changes with strengths at which every property changes the network's input by the same amount.

    The amount is the result of :func:`picture_change`. A property that cannot change the picture by this amount is
    changed as far as possible.

    Args:
        level: amount of change, 0 to 255.
        texture: ``h`` of the non-local means, whose result is blended with the picture.
        search: side of the search window of the non-local means, in pixels. The paper's 21 takes three times as long.
        period: period of the warp, as a fraction of the input's height; default: 40 of 224 pixels, as in the paper.
    """

    name: ClassVar[str] = "calibrated"
    commensurable: ClassVar[bool] = True
    on_view: ClassVar[bool] = True

    level: float = 8.0
    texture: float = 20.0
    search: int = 13
    period: float = 40 / 224

    def change(self, picture: Pixels, name: str) -> Pixels:
        if name == "hue":
            return _search(picture, lambda turn: coloured(picture, "hue", turn), 0.5, self.level)
        if name == "shape":
            frequency = 2 / (self.period * picture.shape[0])
            return _search(picture, lambda size: warp(picture, size, frequency), picture.shape[0] / 8, self.level)
        if name == "texture":
            return _blend(picture, denoise(picture, self.texture, search=self.search), self.level)
        return _blend(picture, coloured(picture, name, 0.0), self.level)


def _blend(picture: Pixels, without: Pixels, level: float) -> Pixels:
    """Blend a picture with its changed copy to reach the level, if possible."""
    whole = picture_change(picture, without)
    part = min(1.0, level / whole) if whole else 0.0
    return np.rint(picture + part * (without.astype(np.float32) - picture)).astype(np.uint8)


def _search(picture: Pixels, change: Callable[[float], Pixels], most: float, level: float) -> Pixels:
    """Return the change at the smallest strength that reaches the level, by bisection."""
    low, high = 0.0, most
    if picture_change(picture, change(high)) <= level:
        return change(high)
    for _ in range(11):
        middle = (low + high) / 2
        low, high = (middle, high) if picture_change(picture, change(middle)) < level else (low, middle)
    return min((change(low), change(high)), key=lambda found: abs(picture_change(picture, found) - level))


def find_changes(name: str) -> Changes:
    known: dict[str, type[Changes]] = {kind.name: kind for kind in (EqualChanges, PaperChanges)}
    if name not in known:
        raise InputError(f"`strengths` must be 'calibrated' or 'paper', got {name!r}.")
    return known[name]()
