"""What happens to pictures on their way: saved again, blurred, resampled. An accuracy without it is half told."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

Change = Callable[[Image.Image], Image.Image]
UNCHANGED = "as it is"


def saved(quality: int) -> Change:
    """As a JPEG of this quality, and read again; chroma at half the size, as is usual."""

    def change(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")

    return change


def blurred(sigma: float) -> Change:
    """By a Gaussian of this standard deviation in pixels."""
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(sigma))


def resampled(part: float) -> Change:
    """Made smaller by this part of its sides and as large again, bilinearly."""

    def change(picture: Image.Image) -> Image.Image:
        small = [max(1, round(part * side)) for side in picture.size]
        return picture.resize((small[0], small[1]), Image.Resampling.BILINEAR).resize(
            picture.size, Image.Resampling.BILINEAR
        )

    return change


PERTURBATIONS: Mapping[str, Change] = {
    UNCHANGED: lambda picture: picture,
    "JPEG 90": saved(90),
    "JPEG 75": saved(75),
    "JPEG 50": saved(50),
    "blur 0.5": blurred(0.5),
    "blur 1": blurred(1.0),
    "resampled 3/4": resampled(0.75),
    "resampled 1/2": resampled(0.5),
}
"""Name → what is done, all of it to photographs and made pictures alike."""


def perturbed(pixels: UInt8[np.ndarray, "n h w 3"], name: str) -> UInt8[np.ndarray, "n h w 3"]:
    """Every picture after one of :data:`PERTURBATIONS`.

    Example:
        >>> grey = np.full((1, 8, 8, 3), 128, np.uint8)
        >>> [int(abs(perturbed(grey, name).astype(int) - 128).max()) for name in ("blur 1", "resampled 1/2")]
        [0, 0]
    """
    change = PERTURBATIONS[name]
    return np.stack([np.asarray(change(Image.fromarray(one))) for one in pixels])
