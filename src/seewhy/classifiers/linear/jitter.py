"""Crops of pictures for fitting and for prediction (Razavian et al. 2014, arXiv 1403.6382).

``None`` is the transform's centre crop.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ...encoders.stream import Views
from ...errors import UnknownNameError
from ...pictures.images import random_crop
from ...types import Crop

CROPS = ("center", "twelve")
AREA, ASPECT = (0.1, 1.0), (3 / 4, 4 / 3)


def random_crops(n: int, seed: int = 0, picture: int = 0) -> list[Crop]:
    """Return ``n`` random crops of 10 to 100 % of the area, half of them mirrored; a larger ``n`` appends crops."""
    return [random_crop(np.random.default_rng([seed, picture, i]), AREA, ASPECT, True) for i in range(n)]


def crops_by_name(name: str, n: int, seed: int = 0) -> list[Crop | None]:
    """Return the whole picture (``None``) and ``n`` random crops, seeded by the file name."""
    picture = zlib.crc32(Path(name).name.encode("utf-8", "surrogateescape"))
    return [None, *random_crops(n, seed, picture)]


def ten_crops(side: float) -> list[Crop]:
    """Return the four corners and the centre, with their mirror images."""
    far, mid = 1 - side, (1 - side) / 2
    places = [*((left, top) for top in (0.0, far) for left in (0.0, far)), (mid, mid)]
    return [Crop((left, top, left + side, top + side), flip) for flip in (False, True) for left, top in places]


def paper_twelve() -> list[Crop | None]:
    """Return 12 of the paper's crops: the original, 5 crops of 4/9 of the area, and their mirror images."""
    return [None, Crop((0.0, 0.0, 1.0, 1.0), flip=True), *ten_crops(2 / 3)]


def predict_views(name: str) -> Views | None:
    """Return the crops for prediction: the centre crop (``None``) for ``"center"``, 12 crops for ``"twelve"``."""
    UnknownNameError.check("set of crops", name, CROPS)
    crops = paper_twelve()
    return None if name == "center" else lambda _index: crops
