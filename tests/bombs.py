"""Small files that ask for much: made here, never kept."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from hostile import encoded, png_chunk


def many_scans(n: int, width: int = 64, height: int = 48) -> bytes:
    """A progressive JPEG whose last scan is there ``n`` times more."""
    data = encoded(Image.fromarray(np.full((height, width, 3), 128, np.uint8)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda"))
    return data[:-2] + data[last:-2] * n + b"\xff\xd9"


def many_segments(n: int) -> bytes:
    """A JPEG with empty segments before its picture."""
    data = encoded(Image.new("RGB", (8, 8)), "JPEG")
    return data[:2] + b"\xff\xe5\x00\x02" * n + data[2:]


def many_chunks(n: int) -> bytes:
    """A PNG with empty chunks before its picture."""
    data = encoded(Image.new("RGB", (8, 8)), "PNG")
    return data[:33] + png_chunk(b"abCd", b"") * n + data[33:]


def same_bytes_again(n: int, size: int) -> bytes:
    """A TIFF, or EXIF, whose entries all stand for the same bytes."""
    head = b"II*\0" + struct.pack("<IH", 8, n)
    at = len(head) + 12 * n + 4
    entries = b"".join(struct.pack("<HHII", tag + 1, 2, size, at) for tag in range(n))
    return head + entries + bytes(4) + b"a" * size


def long_comment(n: int) -> bytes:
    """A GIF whose comment comes in ``n`` pieces."""
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF")
    data = file.getvalue()
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:start] + b"\x21\xfe" + (b"\xff" + b"a" * 255) * n + b"\0" + data[start:]
