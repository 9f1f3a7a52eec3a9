"""Random parts of a picture, as fractions of it."""

from __future__ import annotations

import math

import numpy as np

from ..types import Crop


def random_crop(rng: np.random.Generator, scale: tuple[float, float], aspect: tuple[float, float], flip: bool) -> Crop:
    """One whose area is uniform in ``scale`` and whose width/height ratio is log-uniform in ``aspect``."""
    area = rng.uniform(*scale)
    ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    # A side longer than the picture is cut back and the other grows, which keeps the area.
    ratio = min(max(ratio, area), 1 / area)
    width, height = min(math.sqrt(area * ratio), 1.0), min(math.sqrt(area / ratio), 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    mirrored = bool(rng.random() < 0.5)
    return Crop((left, top, min(left + width, 1.0), min(top + height, 1.0)), flip and mirrored)
