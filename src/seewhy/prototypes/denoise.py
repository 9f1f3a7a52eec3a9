"""Non-local means: the texture of a picture taken away, its edges and colours left."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.950456, 1.0, 1.088754])
_BEND = 0.008856
_Channels = Float32[np.ndarray, "c h w"]


def denoise(
    picture: UInt8[np.ndarray, "h w 3"], strength: float = 4.0, *, patch: int = 7, search: int = 21
) -> UInt8[np.ndarray, "h w 3"]:
    """Each pixel becomes the mean of the pixels around it whose patches look like its own.

    Buades, Coll & Morel 2005. A pixel at distance ``d²``, the mean over the patch of the squared differences summed
    over ``C`` channels, weighs ``exp(−d² / (C · strength²))``. As in OpenCV's ``fastNlMeansDenoisingColored``, which
    the authors call, lightness is weighed by lightness and colour by colour, in CIE Lab of the pixel values taken as
    linear. OpenCV rounds Lab to 8 bits and drops weights below 0.001; here neither is done, so a flat picture stays
    exactly as it is (how far the two differ: ``tests/golden/characteristics.json``). On one core 0.4 s for 224 × 224
    pixels, about OpenCV's time; numpy, so that threads can share the work and no heavy dependency is needed.

    Example:
        >>> flat = np.full((8, 8, 3), 90, np.uint8)
        >>> int(denoise(flat).min()), int(denoise(flat).max())
        (90, 90)
    """
    lab = _to_lab(picture)
    parts = [non_local_mean(lab[:1], strength, patch, search), non_local_mean(lab[1:], strength, patch, search)]
    return _from_lab(np.concatenate(parts))


def non_local_mean(channels: _Channels, strength: float, patch: int = 7, search: int = 21) -> _Channels:
    """The weighted means, borders mirrored. Each pair of pixels is compared once and serves both."""
    n_channels, height, width = channels.shape
    reach, half = search // 2, patch // 2
    wide = np.pad(channels, ((0, 0), (reach + half,) * 2, (reach + half,) * 2), mode="reflect")
    total, weights = channels.copy(), np.ones_like(channels[0])
    scale = np.float32(-1 / (patch**2 * n_channels * strength**2))
    for down in range(reach + 1):
        for right in range(-reach if down else 1, reach + 1):
            # From the first pixel of a pair whose second is on the picture to the last that is on it itself.
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
    """Sums over ``side`` × ``side`` windows, adding runs of 1, 2, 4, … pixels to each other."""
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


def _to_lab(picture: UInt8[np.ndarray, "h w 3"]) -> _Channels:
    """Lab in the units of 8 bits: L is 0…255; a and b are in CIE units."""
    x, y, z = (
        np.einsum("ij,hwj->ihw", _TO_XYZ.astype(np.float32), picture / np.float32(255))
        / _WHITE.astype(np.float32)[:, None, None]
    )
    fx, fy, fz = (np.where(v > _BEND, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    lightness = np.where(y > _BEND, 116 * fy - 16, 903.3 * y)
    return np.stack([lightness * 2.55, 500 * (fx - fy), 200 * (fy - fz)]).astype(np.float32)


def _from_lab(lab: _Channels) -> UInt8[np.ndarray, "h w 3"]:
    lightness = lab[0] / 2.55
    fy = np.where(lightness > 903.3 * _BEND, (lightness + 16) / 116, 7.787 * lightness / 903.3 + 16 / 116)
    f = np.stack([lab[1] / 500 + fy, fy, fy - lab[2] / 200])
    xyz = np.where(f > 7.787 * _BEND + 16 / 116, f**3, (f - 16 / 116) / 7.787) * _WHITE[:, None, None]
    rgb = np.einsum("ij,jhw->hwi", np.linalg.inv(_TO_XYZ), xyz)
    return np.rint(rgb * 255).clip(0, 255).astype(np.uint8)
