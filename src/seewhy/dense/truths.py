"""Pictures looked at beside what they truly show; what cannot be used is named, and the rest goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..errors import ImageError
from ..pictures.pixel_classes import MaskedPictures
from ..progress import Progress
from ..types import Failure
from .reader import Looked
from .segmenter import Segmenter


class Truth(NamedTuple):
    """A picture after the trunk, its mask, and how many pixels have which value without a name."""

    looked: Looked
    mask: np.ndarray
    unnamed: dict[int, int]


def with_truth(segmenter: Segmenter, data: MaskedPictures, progress: Progress, what: str) -> Iterator[Truth]:
    """The pictures that can be used, each looked at once, in order."""
    items = data.items
    looked = segmenter.reader.looked([item.image for item in items])
    for item, one in progress.results(items, looked, what):
        try:
            mask, unnamed = data.truth(item, one.size)
        except ImageError as error:
            progress.failed(Failure(error.path, error.reason))
            continue
        yield Truth(one, mask, unnamed)


def said_unnamed(unnamed: Counter[int], n_pixels: int) -> list[str]:
    """A note of values without a name, if there are any."""
    if not unnamed:
        return []
    said = ", ".join(f"{value} ({n / n_pixels:.1%} of the pixels)" for value, n in unnamed.most_common(5))
    return [f"{len(unnamed)} value(s) of the masks have no name, and count for nothing: {said}"]
