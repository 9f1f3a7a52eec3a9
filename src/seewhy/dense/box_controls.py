"""What boxes are worth that know less: names shuffled, no words at all, the middle of the picture, one class only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..encoders.base import Encoder
from ..metrics.average_precision import PictureBoxes
from ..pictures.boxes import BoxedPicture
from ..types import Failure
from .detections import Keep
from .pooling import box_means
from .reader import Reader
from .word_regions import WordRegions, cut_regions

N_SHUFFLED = 20
MIDDLE = 0.8
"""Part of width and height of the box in the middle."""


@dataclass(frozen=True)
class Control:
    """Boxes of all pictures that know less than those of the detector.

    Attributes:
        name: what they know.
        draws: of each drawing, those of every picture.
    """

    name: str
    draws: tuple[tuple[PictureBoxes, ...], ...]


def controls(
    pictures: Sequence[BoxedPicture],
    there: Sequence[PictureBoxes],
    found: Sequence[PictureBoxes],
    n_classes: int,
    encoder: Encoder | None,
    seed: int,
) -> Iterator[Control]:
    """All of them.

    Shuffled names are the detector's own boxes under other names: for a detector by words the same as if the words
    were exchanged. The others have the commonest class of what is there, which a detector cannot know.

    Args:
        pictures: with their sizes.
        there: what is in them.
        found: what the detector found.
        n_classes: how many.
        encoder: whose features have norms; ``None`` leaves that control out.
        seed: of the drawings.
    """
    commonest = Counter(int(k) for p in there for k in p.labels).most_common(1)
    label = commonest[0][0] if commonest else 0
    if n_classes > 1:
        rng = np.random.default_rng(seed)
        shuffled: list[tuple[PictureBoxes, ...]] = []
        while len(shuffled) < N_SHUFFLED:
            order = rng.permutation(n_classes)
            if (order != np.arange(n_classes)).any():
                shuffled.append(tuple(replace(p, labels=order[p.labels]) for p in found))
        yield Control("names shuffled", tuple(shuffled))
        yield Control("commonest class", (tuple(replace(p, labels=np.full_like(p.labels, label)) for p in found),))
    if encoder is not None:
        yield Control("feature norm", (tuple(_norms(encoder, pictures, label)),))
    yield Control("middle of the picture", (tuple(_middle(p, label) for p in pictures),))


def _middle(picture: BoxedPicture, label: int) -> PictureBoxes:
    width, height = picture.size or (1, 1)
    edge = (1 - MIDDLE) / 2
    return PictureBoxes.of([(edge * width, edge * height, (1 - edge) * width, (1 - edge) * height)], [label])


def _norms(encoder: Encoder, pictures: Sequence[BoxedPicture], label: int) -> Iterator[PictureBoxes]:
    """Regions of large features, cut out as those of words are, each with its mean norm for a score."""
    keep, levels = Keep(), WordRegions().levels
    for looked in Reader(encoder).looked([p.image for p in pictures]):
        if isinstance(looked, Failure):
            yield PictureBoxes.of([], [])
            continue
        norms = looked.windows.merged(encoder.layout.to_grid(looked.features)).norm(dim=0, keepdim=True)
        _, boxes = cut_regions(norms, levels)
        h, w = norms.shape[1:]
        scores = box_means(norms, boxes)[:, 0] if len(boxes) else boxes.new_zeros(0)
        scale = torch.tensor([looked.size[0] / w, looked.size[1] / h] * 2)
        kept = keep.detections(boxes * scale, scores, torch.zeros(len(boxes), dtype=torch.long), ("",), looked.size)
        yield PictureBoxes.of([d.box for d in kept], [label] * len(kept), [d.score for d in kept])
