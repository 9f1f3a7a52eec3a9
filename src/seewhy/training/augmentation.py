"""Pictures as training sees them: random crops, each mirrored half of the time, with other colours where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..encoders.base import Encoder
from ..errors import DataError, ImageError
from ..pictures.images import Picture, read_picture, read_views
from ..pictures.sources import name_of
from ..progress import Progress
from ..types import Failure, FractionBox, Transform
from .distortions import Augmentation

BORDER = 256 / 224
"""Pictures are read this much larger than the network's input, as is usual for ImageNet, and cropped at random."""


View = tuple[np.ndarray, FractionBox, bool]
"""uint8 pixels ``(h, w, 3)``, which part of the upright picture they show, and whether they are mirrored."""


class TrainingPictures:
    """Reads batches of pictures, each a little different every time.

    Args:
        encoder: whose transform is taken.
        pictures: file names or pixels.
        size: side of the crops in pixels; left out, the encoder's own.
        progress: hears once of each picture that cannot be read.
        border: how much larger pictures are read than they are cropped.
        stretch: whether they are then stretched to the crop's shape instead of cut to it.
        n_views: crops a picture.
        augmentation: crops of which sizes, and what is done to their colours; left out, crops of one size alone.
    """

    def __init__(
        self,
        encoder: Encoder,
        pictures: Sequence[Any],
        size: int | None,
        progress: Progress,
        *,
        border: float = BORDER,
        stretch: bool = False,
        n_views: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        own = encoder.transform
        height, width = own.input_size if size is None else (size, size)
        self.transform = replace(own, input_size=(height, width))
        large = (round(height * border), round(width * border))
        resize = large if stretch else _short_side(own, large)
        self.large: Transform = replace(own, input_size=large, resize=resize)
        self.encoder = encoder
        self.pictures = pictures
        self.progress = progress
        self.n_views = n_views
        self.augmentation = augmentation
        self.failed: set[int] = set()

    def batch(
        self, index: Sequence[int], draws: Sequence[np.random.Generator], pool: ThreadPoolExecutor | None = None
    ) -> tuple[list[int], dict[str, Any]]:
        """Positions of the pictures that can be read, and what :class:`seewhy.training.batches.Batch` has of them.

        Args:
            index: positions.
            draws: of each one's own, so that no picture depends on another, nor on the order of threads.
            pool: threads that decode.

        Raises:
            DataError: none can be read.
        """
        read = list((map if pool is None else pool.map)(self._read, index, draws))
        found = [(i, views) for i, views in zip(index, read, strict=True) if views is not None]
        if not found:
            raise DataError(f"None of the {len(index)} pictures of a batch can be read. Give other pictures.")
        by_view = [zip(*each, strict=True) for each in zip(*(views for _, views in found), strict=True)]
        cuts, boxes, flipped = zip(*by_view, strict=True)
        views = tuple(self.encoder.pixels(each) for each in cuts)
        columns = {"views": views, "boxes": torch.tensor(boxes), "flipped": torch.tensor(flipped)}
        return [i for i, _ in found], {"pixels": views[0], **columns}

    def _read(self, i: int, draw: np.random.Generator) -> list[View] | None:
        if i in self.failed:
            return None
        try:
            if self.augmentation is not None:
                return self._distorted(self.augmentation, i, draw)
            picture = read_picture(self.pictures[i], self.large)
        except ImageError as error:
            self.failed.add(i)
            self.progress.failed(Failure(name_of(self.pictures[i], i + 1), error.reason))
            return None
        return [self._cut(picture, draw) for _ in range(self.n_views)]

    def _distorted(self, how: Augmentation, i: int, draw: np.random.Generator) -> list[View]:
        crops = [how.crop(draw) for _ in range(self.n_views)]
        found = []
        for n, view in enumerate(read_views(self.pictures[i], self.transform, crops)):
            (x, y, right, bottom), (wide, high) = view.window, view.original_size
            box = (x / wide, y / high, right / wide, bottom / high)
            found.append((how.distort(view.pixels, draw, n), box, view.flipped))
        return found

    def _cut(self, picture: Picture, draw: np.random.Generator) -> View:
        (height, width), (high, wide) = self.transform.input_size, picture.pixels.shape[:2]
        top, left = int(draw.integers(high - height + 1)), int(draw.integers(wide - width + 1))
        flipped = bool(draw.random() < 0.5)
        view = picture.pixels[top : top + height, left : left + width]
        x, y, right, bottom = picture.window
        across, down = (right - x) / wide / picture.original_size[0], (bottom - y) / high / picture.original_size[1]
        x, y = x / picture.original_size[0] + left * across, y / picture.original_size[1] + top * down
        box = (x, y, x + width * across, y + height * down)
        return (view[:, ::-1] if flipped else view).copy(), box, flipped


def _short_side(own: Transform, large: tuple[int, int]) -> int | tuple[int, int]:
    """The resize that goes with a larger crop: the short side as far beyond the crop as it was, less the border."""
    if not isinstance(own.resize, int):
        return large
    return max(round(own.resize * min(large) / min(own.input_size) / BORDER), max(large))
