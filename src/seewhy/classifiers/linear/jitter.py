"""The versions of one picture that the encoder sees: random crops to fit on (CNNaug), the paper's twelve to predict.

Razavian et al., *CNN Features off-the-shelf* (2014, arXiv 1403.6382), train on several versions of each picture, and
at test sum the responses to the versions. ``None`` is the transform's own centre crop.
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
    """Random crops of a tenth to all of the area, half of them mirrored; a larger number keeps the first ones."""
    return [random_crop(np.random.default_rng([seed, picture, i]), AREA, ASPECT, True) for i in range(n)]


def crops_by_name(name: str, n: int, seed: int = 0) -> list[Crop | None]:
    """The picture and ``n`` random crops, seeded by file name, so that more pictures do not change those of others."""
    picture = zlib.crc32(Path(name).name.encode("utf-8", "surrogateescape"))
    return [None, *random_crops(n, seed, picture)]


def ten_crops(side: float) -> list[Crop]:
    """Four corners and the centre, and their mirror images."""
    far, mid = 1 - side, (1 - side) / 2
    places = [*((left, top) for top in (0.0, far) for left in (0.0, far)), (mid, mid)]
    return [Crop((left, top, left + side, top + side), flip) for flip in (False, True) for left, top in places]


def paper_twelve() -> list[Crop | None]:
    """The paper's (original + 5 crops of 4/9 of the area) × mirror, without its 2 rotations."""
    return [None, Crop((0.0, 0.0, 1.0, 1.0), flip=True), *ten_crops(2 / 3)]


def predict_views(name: str) -> Views | None:
    """Views for prediction: ``"center"`` is the model's own crop (``None``), ``"twelve"`` the paper's twelve."""
    if name not in CROPS:
        raise UnknownNameError("set of crops", name, CROPS)
    crops = paper_twelve()
    return None if name == "center" else lambda _index: crops
