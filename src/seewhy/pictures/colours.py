"""Convert pictures to 8-bit sRGB, and detect the bit depth of 16-bit pictures."""

from __future__ import annotations

import io
import logging
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from ..errors import ImageError

FULL = 65535
STATED, WIDE = "seewhy_greatest", "seewhy_wide"
"""Keys of notes about an undecoded picture: its maximum value, and whether Pillow drops its lower 8 bits."""
_BITS, _GREATEST, _SAMPLE_GREATEST = 258, 281, 341
_logger = logging.getLogger(__name__)
_noted: set[str] = set()


def note_depth(opened: Image.Image) -> None:
    """Store the maximum pixel value that a file states, before the picture is decoded."""
    tags: Any = getattr(opened, "tag_v2", {})
    opened.info[WIDE] = opened.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in opened.tile)  # type: ignore[attr-defined]
    bits = next(iter(_numbers(tags.get(_BITS))), 16)
    own = [2**bits - 1] if 8 < bits < 16 else _numbers(tags.get(_SAMPLE_GREATEST)) or _numbers(tags.get(_GREATEST))
    if own and 255 <= own[0] <= FULL:
        opened.info[STATED] = own[0]


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, tuple) else (value,)
    return [int(v) for v in values if isinstance(v, int | float) and v == v and 0 <= v <= 2**32]


def greatest(name: str, high: int, stated: int | None) -> int:
    """Return the value of white in an integer picture."""
    if stated is not None and high <= stated:
        return stated
    bits = 8 if high <= 255 else 12 if high <= 4095 else 16
    if bits < 16 and high > 0:
        what = f"has values up to {high:,} of {FULL:,}; it and similar pictures are read as {bits}-bit pictures"
        say_once(f"{bits} bits", f"{name}: {what}")
    return 2**bits - 1


def brightened(name: str, image: Image.Image) -> Image.Image:
    """Scale 12-bit colours in 16-bit channels to the full range; Pillow keeps only 4 of their bits."""
    high = max(top for _, top in image.getextrema()[:3]) if image.info.get(WIDE) else 0  # type: ignore[misc]
    if not 0 < high <= 15:
        return image
    what = "has 12-bit colours in 16 bits, of which only 4 bits can be read; save it and similar pictures with 8 bits"
    say_once("colours", f"{name}: {what}")
    table = np.minimum(np.arange(256) * 17, 255).tolist()
    return image.point(table * 3 + (list(range(256)) if image.mode == "RGBA" else []))


def say_once(kind: str, message: str) -> None:
    """Log a message, unless one of this kind was logged before."""
    if kind not in _noted:
        _noted.add(kind)
        _logger.warning("%s", message)


def flatten(name: str, image: Image.Image) -> Image.Image:
    """Return the picture as 8-bit sRGB on a white background."""
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
        image = image.convert("RGB") if image.mode == "P" else image
        try:
            converter = _converter(profile, image.mode)
            image = ImageCms.applyTransform(image, converter) or image if converter else image
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            _logger.warning("%s: its colour profile cannot be used (%s), so it is read as sRGB", name, error)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return image
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=alpha)
    return canvas


def to_bytes(name: str, values: np.ndarray, stated: int | None = None) -> np.ndarray:
    """Convert integers and floats to 8 bits."""
    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind not in "buif":
        raise ImageError(name, f"has {values.dtype} values; they must be integers or floats; convert it to uint8")
    if kind == "b" or (kind, width) == ("u", 1):
        return values if kind == "u" else values * np.uint8(255)
    if (kind, width) == ("u", 2):
        most = greatest(name, int(values.max(initial=0)), stated)
        return ((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError(name, "has no finite value; save it again with 8 bits per channel")
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


@lru_cache(maxsize=32)
def _converter(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(embedded):
        return None
    return ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), mode, "RGB")
