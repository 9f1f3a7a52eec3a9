"""Pictures as files, and forms of several."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """A form of several pictures."""
    return [("picture", (f"{i}.png", data)) for i, data in enumerate(pictures)]
