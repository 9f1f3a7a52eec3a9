"""How many bits of a wide picture are used: 12-bit cameras and scanners write files of 16, which would be black.

What the file states counts, where its values keep to it: TIFF's BitsPerSample, SMaxSampleValue and MaxSampleValue, and
PNG's sBIT (writers that follow the standard stretch the values to 16 bits, and mean it otherwise). Where nothing is
stated, values up to 255 are read as 8 bits, up to 4095 as 12, and others as 16. There are no steps between, and no
picture is stretched to its own brightest value: of one camera's pictures all but the darkest are read alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

FULL = 65535
STATED, WIDE = "seewhy_greatest", "seewhy_wide"
"""What is noted of a picture before it is decoded: the greatest value that it may have, and that Pillow halves it."""
_BITS, _GREATEST, _SAMPLE_GREATEST = 258, 281, 341
_logger = logging.getLogger(__name__)
_noted: set[str] = set()


def note_depth(opened: Image.Image, data: bytes) -> None:
    """Note on a picture that was opened, and not decoded, what its file states."""
    tags: Any = getattr(opened, "tag_v2", {})
    opened.info[WIDE] = opened.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in opened.tile)  # type: ignore[attr-defined]
    if opened.format == "TIFF":
        bits = next(iter(_numbers(tags.get(_BITS))), 16)
        own = [2**bits - 1] if 8 < bits < 16 else _numbers(tags.get(_SAMPLE_GREATEST)) or _numbers(tags.get(_GREATEST))
    else:
        own = [2**bits - 1 for bits in _significant(data) if 8 <= bits < 16]
    if own and 255 <= own[0] <= FULL:
        opened.info[STATED] = own[0]


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, tuple) else (value,)
    return [int(v) for v in values if isinstance(v, int | float) and v == v and 0 <= v <= 2**32]


def _significant(data: bytes) -> Iterator[int]:
    """The first of PNG's significant bits, which stand before its pixels."""
    at = 8 if data.startswith(b"\x89PNG") else len(data)
    while at + 12 <= len(data) and (kind := data[at + 4 : at + 8]) not in (b"IDAT", b"PLTE"):
        if kind == b"sBIT":
            yield data[at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def greatest(name: str, high: int, stated: int | None) -> int:
    """The value of whole numbers that is white.

    Args:
        name: of the picture, for the note.
        high: its greatest value.
        stated: by its file.
    """
    if stated is not None and high <= stated:
        return stated
    bits = 8 if high <= 255 else 12 if high <= 4095 else 16
    if bits < 16 and high > 0:
        what = f"has values up to {high:,} of {FULL:,}; it is read as one of {bits} bits, and so is every other like it"
        _say(f"{bits} bits", f"{name}: {what}")
    return 2**bits - 1


def brightened(name: str, image: Image.Image) -> Image.Image:
    """Colours of 12 bits in 16, of which Pillow keeps the upper 8: the four that are used, over the whole range."""
    high = max(top for _, top in image.getextrema()[:3]) if image.info.get(WIDE) else 0  # type: ignore[misc]
    if not 0 < high <= 15:
        return image
    what = "has colours of 12 bits in 16, of which 4 are read; save it, and every other like it, with 8 bits"
    _say("colours", f"{name}: {what}")
    table = np.minimum(np.arange(256) * 17, 255).tolist()
    return image.point(table * 3 + (list(range(256)) if image.mode == "RGBA" else []))


def _say(kind: str, message: str) -> None:
    """Once for each kind, as the whole folder is likely to be so."""
    if kind not in _noted:
        _noted.add(kind)
        _logger.warning("%s", message)
