"""How large a picture is, by its header alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ImageError
from .images import _HUSH, FILES, _from_array, _identify, _name, _orientation, _read_bytes, _why_not_decoded, n_bytes
from .sources import InMemory, One, plain


def upright_size(given: One, *, longest: int | None = None) -> tuple[int, int]:
    """Width and height of the upright picture; nothing is decoded."""
    source = plain(given)
    name = given.name if isinstance(given, InMemory) else _name(source)
    with _HUSH, FILES.taken(n_bytes(source)):
        try:
            if isinstance(source, str | Path | bytes):
                source = _identify(name, source if isinstance(source, bytes) else _read_bytes(os.fspath(source)))
            elif isinstance(source, np.ndarray):
                source = _from_array(name, source)
            width, height = source.size
            if not width or not height:
                raise ImageError(name, f"has no pixels ({width} by {height}); give one of at least 1 by 1")
            if longest is not None and max(width, height) > longest * min(width, height):
                times = f"one side may be {longest} times the other where a picture is cut into windows"
                raise ImageError(name, f"has {width:,} by {height:,} pixels; {times}; cut it into shorter pieces")
            turned = isinstance(source, Image.Image) and _orientation(source) >= 5
        except ImageError:
            raise
        except Exception as error:  # a decoder fed hostile bytes raises anything
            raise ImageError(name, _why_not_decoded(error)) from error
    return (height, width) if turned else (width, height)
