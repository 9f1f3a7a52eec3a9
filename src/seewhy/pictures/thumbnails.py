"""Small copies of pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ..errors import WeightsError
from .decoding import check_scans

LARGEST = 1 << 24
"""Pixels of a view that are decoded; no network looks at so many."""


def encode_thumbnail(pixels: np.ndarray, quality: int = 85) -> bytes:
    """The pixels ``(h, w, 3)`` as JPEG bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality)
    return file.getvalue()


def decode_thumbnail(data: bytes, name: str) -> np.ndarray:
    """The pixels ``(h, w, 3)`` of JPEG bytes that were kept with a model; no other format is tried."""
    try:
        check_scans(data)
        opened = Image.open(io.BytesIO(data), formats=["JPEG"])
        if opened.width * opened.height > LARGEST:
            raise ValueError(f"it has {opened.width} x {opened.height} pixels")
        return np.asarray(opened.convert("RGB"))
    except Exception as error:
        raise WeightsError(
            f"The view kept of {name!r} cannot be read: {error}. A JPEG picture was expected. Fit the model again."
        ) from error
