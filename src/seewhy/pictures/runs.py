"""Masks as COCO writes them: lengths of runs down the columns, packed into a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError

LARGEST = 2**28
"""Pixels of a mask; no picture that is read has more."""


def runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of 0 and 1 in turn, column by column, beginning with 0.

    Example:
        >>> runs(np.array([[0, 1], [1, 1]])).tolist()
        [1, 3]
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    ends = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    lengths = np.diff(ends)
    return np.concatenate([[0], lengths]) if flat.size and flat[0] else lengths


def encode(mask: np.ndarray) -> dict[str, Any]:
    """``{"size": [h, w], "counts": text}``, as pycocotools' ``mask.encode`` writes it.

    Each run is given as its difference from the one two before it, in groups of five bits, lowest first, a sixth that
    says whether more follow, and 48 added to be a letter.

    Example:
        >>> encode(np.array([[0, 1], [1, 1]]))
        {'size': [2, 2], 'counts': '13'}
    """
    lengths = runs(mask).tolist()
    letters = []
    for i, length in enumerate(lengths):
        x, more = length - (lengths[i - 2] if i > 2 else 0), True
        while more:
            group = x & 0x1F
            x >>= 5
            more = x != -1 if group & 0x10 else x != 0
            letters.append(chr((group | 0x20 if more else group) + 48))
    return {"size": [int(n) for n in np.shape(mask)], "counts": "".join(letters)}


def decode(coded: Any, name: str = "a mask") -> np.ndarray:
    """The mask ``(h, w)`` of booleans; counts are a text or a list of lengths.

    Example:
        >>> decode({"size": [2, 2], "counts": [1, 3]}).tolist()
        [[False, True], [True, True]]
    """
    try:
        (height, width), counts = (int(n) for n in coded["size"]), coded["counts"]
        lengths = _lengths(counts) if isinstance(counts, str) else [int(n) for n in counts]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{name} is no run-length mask ({type(error).__name__}: {error}). "
            '{"size": [height, width], "counts": …} as COCO writes it was expected. Export it again.'
        ) from error
    right = min(lengths, default=0) >= 0 and sum(lengths) == height * width
    if not right or height < 1 or width < 1 or height * width > LARGEST:
        raise DataError(
            f"{name} has runs of {sum(lengths)} pixels for {height} rows of {width}. As many as the picture has were "
            "expected. Export it again."
        )
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape((height, width), order="F")


def _lengths(text: str) -> list[int]:
    found: list[int] = []
    x = shift = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError(f"{letter!r} is none of its letters")
        x, shift = x | (group & 0x1F) << shift, shift + 5
        if not group & 0x20:
            x |= -1 << shift if group & 0x10 else 0
            found.append(x + (found[-2] if len(found) > 2 else 0))
            x = shift = 0
    if shift:
        raise ValueError("its counts are cut off")
    return found
