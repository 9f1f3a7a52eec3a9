"""What happens to photographs on their way, at levels of a public benchmark: compression, blur, noise, and the like."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ..types import Crop, Transform
from .images import read_picture, read_views
from .sources import One

SIDE = 224
"""Short side in pixels at which pictures are corrupted, as in the benchmark; smaller ones stay as they are."""
_UNIT = (1.0, 1.0, 1.0)
_SMALL = Transform((32, 32), 32, "bilinear", _UNIT, _UNIT)
WHOLE = Crop((0.0, 0.0, 1.0, 1.0))


@dataclass(frozen=True)
class Corruption:
    """One kind, at the levels 1, 3 and 5 of ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261)."""

    name: str
    levels: tuple[float, ...]
    change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]

    def __call__(self, pixels: np.ndarray, level: float, seed: int) -> np.ndarray:
        """The corrupted picture; the same for the same seed."""
        return self.change(pixels, level, np.random.default_rng([seed, *self.name.encode()]))


def read_small(source: One) -> np.ndarray:
    """The whole picture ``(h, w, 3)``, its short side at most :data:`SIDE`."""
    width, height = read_picture(source, _SMALL).original_size
    shrink = min(1.0, SIDE / min(width, height))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    return read_views(source, Transform(size, size, "bicubic", _UNIT, _UNIT), [WHOLE])[0].pixels


def _jpeg(pixels: np.ndarray, quality: float, _rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=int(quality))
    return np.asarray(Image.open(buffer).convert("RGB"))


def _blur(pixels: np.ndarray, sigma: float, _rng: np.random.Generator) -> np.ndarray:
    """A Gaussian (Pillow's, of boxes), its width in parts of the picture."""
    radius = sigma * min(pixels.shape[:2]) / SIDE
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _noise(pixels: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    return _bytes(pixels / 255 + rng.normal(0, scale, pixels.shape))


def _resampling(pixels: np.ndarray, part: float, _rng: np.random.Generator) -> np.ndarray:
    """Made smaller and large again, by boxes."""
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize(
        (max(1, int(width * part)), max(1, int(height * part))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def _brightness(pixels: np.ndarray, more: float, _rng: np.random.Generator) -> np.ndarray:
    """The value of HSV raised: all three channels times what the largest of them is raised by."""
    unit = pixels / 255
    value = unit.max(2, keepdims=True)
    raised = np.minimum(value + more, 1)
    return _bytes(np.where(value > 0, unit * raised / np.where(value > 0, value, 1), raised))


def _bytes(unit: np.ndarray) -> np.ndarray:
    return (unit.clip(0, 1) * 255).astype(np.uint8)


CORRUPTIONS = (
    Corruption("JPEG", (25, 15, 7), _jpeg),
    Corruption("blur", (1, 3, 6), _blur),
    Corruption("noise", (0.08, 0.18, 0.38), _noise),
    Corruption("resampling", (0.6, 0.4, 0.25), _resampling),
    Corruption("brightness", (0.1, 0.3, 0.5), _brightness),
)
