"""What is done to a view beside cutting it, so that a network learns what stays: colours, grey, blur, solarisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ..errors import InputError, UnknownNameError
from ..pictures.crops import random_crop
from ..types import Crop


@dataclass(frozen=True)
class Augmentation:
    """Random crops with flips and colours, each view of a picture drawn apart (SimCLR's appendix A, BYOL's appendix B).

    Blur and solarisation may differ between the first view and the second, as in BYOL; further views begin again.

    Args:
        scale: area of a crop, as a part of the picture.
        aspect: its width to height, as fractions of the picture.
        flip: whether a view is mirrored half of the time.
        jitter: how often brightness, contrast, saturation and hue change, in an order of their own.
        brightness: by which factor at most, beside 1; so are contrast and saturation.
        contrast: see brightness.
        saturation: see brightness.
        hue: turn of the colour circle at most.
        grey: how often colours go.
        blur: how often a view is blurred, by a deviation of 0.1 to 2 pixels at 224.
        solarise: how often what is brighter than half is inverted.

    Raises:
        InputError: a range that is empty or no part of a picture, or a part that is none.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grey: float = 0.2
    blur: tuple[float, ...] = (0.5,)
    solarise: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        parts = (self.jitter, self.brightness, self.contrast, self.saturation, self.grey, *self.blur, *self.solarise)
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1]):
            raise InputError(
                f"The augmentation was given scale={self.scale}, aspect={self.aspect}. Parts above 0 to 1 of a "
                "picture's area, and ratios above 0, the smaller first, were expected. Change them."
            )
        if not all(0 <= part <= 1 for part in parts) or not 0 <= self.hue <= 0.5 or not self.blur or not self.solarise:
            raise InputError(
                f"The augmentation was given parts outside 0 to 1: {self}. How often and how much, 0 to 1 and for the "
                "hue 0 to 0.5, was expected. Change them."
            )

    def crop(self, draw: np.random.Generator) -> Crop:
        """Which part of a picture a view shows."""
        return random_crop(draw, self.scale, self.aspect, self.flip)

    def distort(self, pixels: np.ndarray, draw: np.random.Generator, view: int) -> np.ndarray:
        """A view ``(h, w, 3)`` with other colours; everything is drawn, whether it is used or not."""
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
        if which == 3:
            return _turned(image, self.hue * amount) if self.hue else image
        how = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
        most = (self.brightness, self.contrast, self.saturation)[which]
        return how(image).enhance(1 + most * amount) if most else image


def _turned(image: Image.Image, turn: float) -> Image.Image:
    """With every hue turned by a part of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = np.asarray(hue).astype(np.int16) + round(255 * turn)
    return Image.merge("HSV", (Image.fromarray((shifted % 256).astype(np.uint8)), saturation, value)).convert("RGB")


AUGMENTATIONS = {
    "simclr": Augmentation(),
    "byol": Augmentation(scale=(0.08, 1.0), saturation=0.2, blur=(1.0, 0.1), solarise=(0.0, 0.2)),
    "crops": Augmentation(jitter=0.0, grey=0.0, blur=(0.0,)),
    "whole": Augmentation(scale=(0.8, 1.0), flip=False, jitter=0.0, grey=0.0, blur=(0.0,)),
}
"""By name: with SimCLR's colours; with BYOL's; crops and flips alone; and small cuts, for digits and the like."""


def augmentation(name: str) -> Augmentation:
    """One of :data:`AUGMENTATIONS`.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]
