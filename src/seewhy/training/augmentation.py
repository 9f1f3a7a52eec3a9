"""Pictures as training sees them: a random crop, mirrored half of the time, drawn from torch's random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, rand

from ..encoders.base import Encoder
from ..errors import DataError, ImageError
from ..listener import Listener
from ..pictures.images import read_picture
from ..pictures.sources import name_of
from ..types import Failure, Transform

BORDER = 256 / 224
"""Pictures are read this much larger than the network's input, as is usual for ImageNet, and cropped at random."""


class TrainingPictures:
    """Reads batches of pictures, each a little different every time.

    Args:
        encoder: whose transform is taken.
        pictures: file names or pixels.
        size: side of the crops in pixels; left out, the encoder's own.
        listener: hears once of each picture that cannot be read.
    """

    def __init__(self, encoder: Encoder, pictures: Sequence[Any], size: int | None, listener: Listener) -> None:
        own = encoder.transform
        height, width = own.input_size if size is None else (size, size)
        self.transform = replace(own, input_size=(height, width))
        large = (round(height * BORDER), round(width * BORDER))
        self.large: Transform = replace(own, input_size=large, resize=_short_side(own, large))
        self.encoder = encoder
        self.pictures = pictures
        self.listener = listener
        self.failed: set[int] = set()

    def batch(self, index: Sequence[int]) -> tuple[Float[Tensor, "b 3 h w"], list[int]]:
        """Normalised pixels, and the positions of the pictures they are of: those that cannot be read are left out.

        Raises:
            DataError: none can be read.
        """
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(self._read, index))
        height, width = self.transform.input_size
        views, kept = [], []
        for i, picture in zip(index, read, strict=True):
            place = rand(3)  # drawn for a broken one too, so that the others do not depend on it
            if picture is None:
                continue
            top = int(place[0] * (picture.shape[0] - height + 1))
            left = int(place[1] * (picture.shape[1] - width + 1))
            view = picture[top : top + height, left : left + width]
            views.append(view[:, ::-1].copy() if place[2] < 0.5 else view.copy())
            kept.append(i)
        if not views:
            raise DataError(f"None of the {len(index)} pictures of a batch can be read. Give other pictures.")
        return self.encoder.pixels(views), kept

    def _read(self, i: int) -> np.ndarray | None:
        if i in self.failed:
            return None
        try:
            return read_picture(self.pictures[i], self.large).pixels
        except ImageError as error:
            self.failed.add(i)
            self.listener.failed(Failure(name_of(self.pictures[i], i + 1), error.reason))
            return None


def _short_side(own: Transform, large: tuple[int, int]) -> int | tuple[int, int]:
    """The resize that goes with a larger crop: the short side as far beyond the crop as it was, less the border."""
    if not isinstance(own.resize, int):
        return large
    return max(round(own.resize * min(large) / min(own.input_size) / BORDER), max(large))
