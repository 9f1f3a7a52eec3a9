"""The versions of one picture that the encoder sees: random crops to fit on (CNNaug), the paper's twelve to predict.

Razavian, Azizpour, Sullivan, Carlsson, *CNN Features off-the-shelf* (2014, arXiv 1403.6382): a classifier on frozen
features is trained on several versions of each picture, and at test the responses to the versions are summed.
The view ``None`` is the transform's own centre crop; a :class:`~seewhy.types.Crop` replaces it.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from seewhy.encoders.stream import Views
from seewhy.errors import InputError, UnknownNameError
from seewhy.pictures.crops import random_crop
from seewhy.types import Crop

View = Crop | None
"""A crop, or ``None`` for the transform's own centre crop."""
CROPS = ("center", "twelve")


def random_crops(
    n: int,
    seed: int = 0,
    picture: int = 0,
    *,
    scale: tuple[float, float] = (0.1, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> list[Crop]:
    """Draw crops whose area is uniform in ``scale`` and whose width/height ratio is log-uniform in ``aspect``.

    Crop ``i`` depends on ``(seed, picture, i)`` alone, so asking for more crops keeps the first ones, and features
    already stored stay valid. Area and ratio are in fractions of the picture; a side never exceeds the picture.

    Example:
        >>> [round(v, 3) for v in random_crops(1, scale=(1.0, 1.0), aspect=(1.0, 1.0))[0].box]
        [0.0, 0.0, 1.0, 1.0]
    """
    if n < 0:
        raise InputError(f"The number of crops is {n}. Expected zero or more. Pass n=8, say.")
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < aspect[0] <= aspect[1] < math.inf):
        raise InputError(
            f"The crop scale is {scale} and the aspect {aspect}. Expected 0 < smallest <= largest, and a scale up to "
            "1. Pass scale=(0.1, 1.0), aspect=(3/4, 4/3), say."
        )
    return [random_crop(np.random.default_rng([seed, picture, i]), scale, aspect, flip) for i in range(n)]


def crops_by_name(name: str, n: int, seed: int = 0) -> list[View]:
    """The picture as it is and ``n`` random crops, drawn by file name: more pictures leave the crops of others alone.

    Example:
        >>> crops_by_name("a/1.png", 2) == crops_by_name("b/1.png", 2)
        True
    """
    picture = zlib.crc32(Path(name).name.encode("utf-8", "surrogateescape"))
    return [None, *random_crops(n, seed, picture)]


def ten_crops(side: float = 0.875) -> list[Crop]:
    """Four corners and the centre, and their mirror images; 0.875 is the usual 224 out of 256 pixels.

    Example:
        >>> len(ten_crops()), ten_crops(0.5)[4].box
        (10, (0.25, 0.25, 0.75, 0.75))
    """
    if not 0 < side <= 1:
        raise InputError(f"The crop side is {side}. Expected a fraction above 0 and at most 1. Pass side=2/3, say.")
    far, mid = 1 - side, (1 - side) / 2
    places = [*((left, top) for top in (0.0, far) for left in (0.0, far)), (mid, mid)]
    return [Crop((left, top, left + side, top + side), flip) for flip in (False, True) for left, top in places]


def paper_twelve() -> list[View]:
    """The paper's (original + 5 crops of 4/9 of the area) x mirror.

    The paper adds 2 rotations for 16 versions, but does not give the angle, and a crop cannot rotate: 12 remain.
    The original is the centre crop (``None``); its mirror image is the mirrored whole picture.
    """
    return [None, Crop((0.0, 0.0, 1.0, 1.0), flip=True), *ten_crops(2 / 3)]


def predict_views(name: str) -> Views | None:
    """``"center"`` is the model's own crop (``None``); ``"twelve"`` the paper's twelve versions."""
    if name not in CROPS:
        raise UnknownNameError("set of crops", name, CROPS)
    crops = paper_twelve()
    return None if name == "center" else lambda _index: crops
