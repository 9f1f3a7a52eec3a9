"""Any picture's colours as 8-bit sRGB.

* An embedded profile other than sRGB is converted. A damaged or unfitting one is reported through ``logging``
  and the picture read as sRGB, as browsers do.
* Transparent pixels lie on the background. 16-bit grey becomes 8-bit by /257, or by the rules of
  :mod:`seewhy.pictures.depth` where fewer bits are used; of 16-bit RGB Pillow gives the high byte.
  Floats within 0…1 are times 255, floats and wide integers within 0…255 are kept, wide integers up to 65535 are as
  16-bit grey; any other range is stretched from its smallest to its largest value. NaN and infinity become black.
"""

from __future__ import annotations

import io
import logging
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from ..errors import ImageError
from .depth import FULL, STATED, brightened, greatest

Colour = tuple[int, int, int]
_logger = logging.getLogger(__name__)


def flatten(name: str, image: Image.Image, background: Colour) -> Image.Image:
    """8-bit sRGB on the background."""
    image = brightened(name, image)
    profile, alpha = image.info.get("icc_profile"), None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values, key, stated = np.asarray(image), image.info.get("transparency"), image.info.get(STATED)
        # Before 11.3 Pillow gave 16-bit PNG as 32-bit integers.
        image = Image.fromarray(to_bytes(name, values.astype(np.uint16) if image.format == "PNG" else values, stated))
        if isinstance(key, int):
            alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        opaque = "L" if image.mode in ("L", "LA") else "RGB"
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert(opaque)
    if profile and image.mode != "1":
        image = _to_srgb(name, image.convert("RGB") if image.mode == "P" else image, profile)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return image
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=alpha)
    return canvas


def to_bytes(name: str, values: np.ndarray, stated: int | None = None) -> np.ndarray:
    """Wide integers and floats as 8 bits, by the rule in the module's docstring."""
    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind not in "buif":
        raise ImageError(name, f"holds {values.dtype} values; expected integers or floats; convert it to uint8")
    if kind == "b" or (kind, width) == ("u", 1):
        return values if kind == "u" else values * np.uint8(255)
    if (kind, width) == ("u", 2):
        most = greatest(name, int(values.max(initial=0)), stated)
        return ((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError(name, "holds no finite value; save it anew with 8 bits a channel")
    values = np.where(finite, values, 0).astype(np.float64).clip(-1e300, 1e300)
    low, high = values[finite].min(), values[finite].max()
    if kind != "f" and low >= 0 and high <= FULL:
        gain: float | None = 255 / greatest(name, int(high), stated) if high > 255 or stated else 1.0
    else:
        ranges = ((1, 255.0), (255, 1.0)) if kind == "f" else ()
        gain = next((gain for top, gain in ranges if low >= 0 and high <= top), None)
    if gain is None:
        values, gain = values - low, 255 / (high - low) if high > low else 0.0
    return np.where(finite, np.rint(values * gain), 0).astype(np.uint8)


def _to_srgb(name: str, image: Image.Image, profile: bytes) -> Image.Image:
    try:
        converter = _converter(profile, image.mode)
        return ImageCms.applyTransform(image, converter) or image if converter else image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _logger.warning("%s: its colour profile cannot be used (%s); it is read as sRGB", name, error)
        return image


@lru_cache(maxsize=32)
def _converter(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(embedded):
        return None
    return ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), mode, "RGB")
