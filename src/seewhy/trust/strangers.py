"""Pictures that are of nothing: noise, stripes, spots and ramps, to see whether they are noticed as such."""

from __future__ import annotations

import numpy as np

KINDS = ("white noise", "pink noise", "brown noise", "stripes", "checks", "spots", "ramps", "flat")


def strangers(n: int, side: int, seed: int = 0) -> list[np.ndarray]:
    """``n`` pictures in turn of each kind, uint8 ``(side, side, 3)``, in random colours.

    Example:
        >>> [p.shape for p in strangers(2, 32)]
        [(32, 32, 3), (32, 32, 3)]
    """
    random = np.random.default_rng(seed)
    return [_coloured(_grey(KINDS[i % len(KINDS)], side, random), random) for i in range(n)]


def _grey(kind: str, side: int, random: np.random.Generator) -> np.ndarray:
    """Values of 0…1, one plane or three."""
    y, x = np.mgrid[0:side, 0:side] / side
    if kind.endswith("noise"):
        power = {"white": 0.0, "pink": 1.0, "brown": 2.0}[kind.split()[0]]
        return _scaled(np.stack([_noise(side, power, random) for _ in range(3)], -1))
    angle, waves = random.uniform(0, np.pi), random.uniform(2, max(side / 8, 3))
    along = (np.cos(angle) * x + np.sin(angle) * y) * waves
    if kind == "stripes":
        return 0.5 + 0.5 * np.sin(2 * np.pi * along)
    if kind == "checks":
        return ((np.floor(x * waves) + np.floor(y * waves)) % 2).astype(float)
    if kind == "spots":
        centres = random.uniform(0, 1, (30, 2))
        near = np.min([(x - a) ** 2 + (y - b) ** 2 for a, b in centres], 0)
        return (near < random.uniform(0.001, 0.01)).astype(float)
    return _scaled(along) if kind == "ramps" else np.full((side, side), 0.5)


def _noise(side: int, power: float, random: np.random.Generator) -> np.ndarray:
    """Amplitudes that fall with frequency to this power."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    f[0, 0] = 1.0
    return np.fft.ifft2(np.fft.fft2(random.standard_normal((side, side))) / f**power).real


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, 1e-9)


def _coloured(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    first, second = random.uniform(0, 255, (2, 3))
    plane = values if values.ndim == 3 else values[..., None]
    return np.clip(first + (second - first) * plane, 0, 255).astype(np.uint8)
