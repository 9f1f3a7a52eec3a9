"""Training and test kept apart: no picture, and no group, on both sides."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError, ImageError
from ..storage.reading import file_sha256
from .images import MAX_BYTES
from .samples import Sample, Samples, some
from .sources import plain


def content_digest(sample: Sample) -> str | None:
    """SHA-256 of a file's bytes, or of the pixels of what is no file; ``None`` where it cannot be read."""
    try:
        given: Any = plain(sample.source)
        if isinstance(given, bytes):
            return hashlib.sha256(given).hexdigest()
        if isinstance(given, Image.Image | np.ndarray):
            pixels = np.asarray(given)
            return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
        return file_sha256(given, MAX_BYTES)
    except (OSError, ValueError, ImageError):
        return None


def copies(samples: Samples) -> list[tuple[int, ...]]:
    """Places of pictures that are the same byte for byte, first seen first."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples.items):
        if (digest := content_digest(sample)) is not None:
            places[digest].append(i)
    return [tuple(same) for same in places.values() if len(same) > 1]


def check_apart(train: Samples, test: Samples) -> None:
    """See that no picture is on both sides."""
    known = {digest: s.image for s in train.items if (digest := content_digest(s)) is not None}
    both = [f"{known[digest]} = {s.image}" for s in test.items if (digest := content_digest(s)) in known]
    if both:
        raise DataError(
            f"{len(both)} picture(s) are among those that are learnt from and among those that are tested on: "
            f"{some(both, 3)}. Each on one side was expected. Remove them from one."
        )


def folds_of(samples: Samples, n: int, seed: int = 0) -> list[int]:
    """The fold of each picture, 0 to ``n - 1`` at most, all about as large; copies and groups stay together."""
    owners = _together(samples)
    sizes = Counter(owners)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    full, fold = [0] * min(n, len(order)), dict[int, int]()
    for owner in sorted(order, key=lambda o: -sizes[o]):
        fold[owner] = full.index(min(full))
        full[fold[owner]] += sizes[owner]
    return [fold[owner] for owner in owners]


def _together(samples: Samples) -> list[int]:
    """Of each picture the first one that it belongs together with, by group or by content."""
    owner = list(range(len(samples)))

    def root(i: int) -> int:
        while owner[i] != i:
            owner[i] = i = owner[owner[i]]
        return i

    groups: dict[str, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples.items):
        if sample.group is not None:
            groups[sample.group].append(i)
    for same in [*groups.values(), *copies(samples)]:
        for i in same[1:]:
            a, b = sorted((root(same[0]), root(i)))
            owner[b] = a
    return [root(i) for i in range(len(owner))]
