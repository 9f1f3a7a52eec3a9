"""Pictures as training sees them: random crops, each mirrored half of the time, with other colours where asked for."""

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
"""Pictures are read this much larger than the network's input, as is usual for ImageNet, and cropped at random."""
View = tuple[np.ndarray, FractionBox, bool]
"""uint8 pixels ``(h, w, 3)``, which part of the upright picture they show, and whether they are mirrored."""


class TrainingPictures:
    """Reads batches of pictures, each picture a little different every time."""

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
        if isinstance(own.resize, int) and not stretch:  # as far beyond the crop as it was, less the border
            resize = max(round(own.resize * min(large) / min(own.input_size) / BORDER), max(large))
        self.large: Transform = replace(own, input_size=large, resize=resize)
        self.encoder, self.pictures, self.progress = encoder, pictures, progress
        self.n_views, self.augmentation = n_views, augmentation
        self.failed: set[int] = set()

    def batch(
        self, index: Sequence[int], draws: Sequence[np.random.Generator], pool: ThreadPoolExecutor | None = None
    ) -> tuple[list[int], dict[str, Any]]:
        """Positions of the readable pictures, and their fields for :class:`seewhy.training.batches.Batch`."""
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
    """Random crops with flips and colours, drawn separately for each view (SimCLR's appendix A, BYOL's appendix B).

    Blur and solarisation may differ between the first and the second view, as in BYOL; further views repeat this pair.

    Args:
        scale: area of a crop, as a fraction of the picture.
        aspect: ratio of its width to its height, both as fractions of the picture.
        flip: whether to mirror a view half of the time.
        jitter: how often brightness, contrast, saturation and hue change, in random order.
        brightness: largest difference of its factor from 1.
        contrast: largest difference of its factor from 1.
        saturation: largest difference of its factor from 1.
        hue: largest turn of the colour circle.
        grey: how often a view becomes grey.
        blur: how often a view is blurred, with a standard deviation of 0.1 to 2 pixels at 224.
        solarise: how often pixels brighter than half are inverted.
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
        check_fields(self, "The augmentation")
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1]):
            raise InputError(
                f"The augmentation was given scale={self.scale}, aspect={self.aspect}. Expected parts of a picture's "
                "area above 0 and at most 1, and ratios above 0, the smaller first. Change them."
            )
        parts = (*self.blur, *self.solarise)
        if not self.blur or not self.solarise or not all(0 <= part <= 1 for part in parts):
            raise InputError(
                f"The augmentation was given blur={self.blur}, solarise={self.solarise}. Expected a probability from 0 "
                "to 1 for one view or more. Change them."
            )

    def distort(self, pixels: np.ndarray, draw: np.random.Generator, view: int) -> np.ndarray:
        """A view ``(h, w, 3)`` in other colours; all random numbers are drawn, even those that are not used."""
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
"""By name: with SimCLR's colours; with BYOL's; crops and flips alone; and small cuts, for digits and the like."""


def augmentation(name: str) -> Augmentation:
    """The augmentation of this name."""
    if name not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]
