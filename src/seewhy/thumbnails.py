"""Small copies of pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encode_thumbnail(pixels: np.ndarray, quality: int = 85) -> bytes:
    """The pixels ``(h, w, 3)`` as JPEG bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality)
    return file.getvalue()
