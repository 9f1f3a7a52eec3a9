"""Training pictures with random crops, flips and colour changes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ..bounds import Bound, Part, check_fields
from ..encoders.base import Encoder
from ..errors import DataError, ImageError, InputError, UnknownNameError
from ..pictures.images import Picture, random_crop, read_picture, read_views
from ..pictures.sources import name_of
from ..progress import Progress
from ..types import Failure, FractionBox, Transform

BORDER = 256 / 224
"""Ratio of the size of decoded pictures to the network's input; random crops are taken from it."""
View = tuple[np.ndarray, FractionBox, bool]
"""uint8 pixels ``(h, w, 3)``, the box of the upright picture that they show, and whether they are mirrored."""


class TrainingPictures:
    """A reader of batches of randomly augmented pictures."""

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
        resize: int | tuple[int, int] = large
        if isinstance(own.resize, int) and not stretch:  # the same margin around the crop, less the border
            resize = max(round(own.resize * min(large) / min(own.input_size) / BORDER), max(large))
        self.large: Transform = replace(own, input_size=large, resize=resize)
        self.encoder, self.pictures, self.progress = encoder, pictures, progress
        self.n_views, self.augmentation = n_views, augmentation
        self.failed: set[int] = set()

    def batch(
        self, index: Sequence[int], draws: Sequence[np.random.Generator], pool: ThreadPoolExecutor | None = None
    ) -> tuple[list[int], dict[str, Any]]:
        """Return the indices of the readable pictures, and their columns for :class:`seewhy.training.batches.Batch`."""
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
        crops = [random_crop(draw, how.scale, how.aspect, how.flip) for _ in range(self.n_views)]
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


@dataclass(frozen=True)
class Augmentation:
    """Random crops, flips and colour changes, drawn separately for each view (SimCLR, appendix A; BYOL, appendix B).

    Blur and solarisation may have a probability for each view, as in BYOL; additional views repeat these probabilities
    in turn.

    Args:
        scale: range of the area of a crop, as a fraction of the picture.
        aspect: range of the aspect ratio of a crop, relative to the aspect ratio of the picture.
        flip: whether to mirror a view with probability 0.5.
        jitter: probability of changing brightness, contrast, saturation and hue, in random order.
        brightness: maximum deviation of the brightness factor from 1.
        contrast: maximum deviation of the contrast factor from 1.
        saturation: maximum deviation of the saturation factor from 1.
        hue: maximum hue shift, as a fraction of the colour circle.
        grey: probability of converting a view to grey.
        blur: probability of a Gaussian blur with a standard deviation of 0.1 to 2 pixels at a size of 224.
        solarise: probability of inverting pixels above half brightness.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    jitter: Part = 0.8
    brightness: Part = 0.4
    contrast: Part = 0.4
    saturation: Part = 0.4
    hue: Annotated[float, Bound(0, 0.5)] = 0.1
    grey: Part = 0.2
    blur: tuple[float, ...] = (0.5,)
    solarise: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        check_fields(self, "the augmentation")
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1]):
            raise InputError(
                "`scale` must be two ascending fractions from 0 to 1 and `aspect` two ascending ratios "
                f"greater than 0, got scale={self.scale}, aspect={self.aspect}."
            )
        parts = (*self.blur, *self.solarise)
        if not self.blur or not self.solarise or not all(0 <= part <= 1 for part in parts):
            raise InputError(
                "`blur` and `solarise` must each have at least one probability from 0 to 1, got "
                f"blur={self.blur}, solarise={self.solarise}."
            )

    def distort(self, pixels: np.ndarray, draw: np.random.Generator, view: int) -> np.ndarray:
        """Apply the colour changes to a view ``(h, w, 3)``."""
        chances, amounts, order = draw.random(4), draw.uniform(-1, 1, 4), draw.permutation(4)
        sigma = draw.uniform(0.1, 2.0) * max(pixels.shape[:2]) / 224
        image = Image.fromarray(pixels)
        if chances[0] < self.jitter:
            for which in order.tolist():
                image = self._jittered(image, which, float(amounts[which]))
        if chances[1] < self.grey:
            image = ImageOps.grayscale(image).convert("RGB")
        if chances[2] < self.blur[view % len(self.blur)]:
            image = image.filter(ImageFilter.GaussianBlur(sigma))
        if chances[3] < self.solarise[view % len(self.solarise)]:
            image = ImageOps.solarize(image)
        return np.array(image)

    def _jittered(self, image: Image.Image, which: int, amount: float) -> Image.Image:
        if which == 3:  # every hue is turned by a part of the circle
            hue, saturation, value = image.convert("HSV").split()
            turned = (np.asarray(hue).astype(np.int16) + round(255 * self.hue * amount)) % 256
            merged = Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value))
            return merged.convert("RGB") if self.hue else image
        how = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
        most = (self.brightness, self.contrast, self.saturation)[which]
        return how(image).enhance(1 + most * amount) if most else image


AUGMENTATIONS = {
    "simclr": Augmentation(),
    "byol": Augmentation(scale=(0.08, 1.0), saturation=0.2, blur=(1.0, 0.1), solarise=(0.0, 0.2)),
    "crops": Augmentation(jitter=0.0, grey=0.0, blur=(0.0,)),
    "whole": Augmentation(scale=(0.8, 1.0), flip=False, jitter=0.0, grey=0.0, blur=(0.0,)),
}
"""By name: SimCLR, BYOL, only crops and flips, and only slight crops (for digits, for example)."""


def augmentation(name: str) -> Augmentation:
    """Return the augmentation with this name."""
    UnknownNameError.check("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]
