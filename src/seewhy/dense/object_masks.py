"""Where the object is, by a segmenter or by words: masks that a machine drew."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..encoders.base import Encoder
from ..errors import DataError, ImageError
from ..pictures.images import Picture
from ..pictures.object_masks import in_view, usable
from ..pictures.samples import Sample, some
from ..storage.features import FeatureStore
from .finders import Segmenter
from .maskclip import MaskCLIP

REST = ("background", "ground", "sky", "plants", "water", "wall")
"""What else may be in a picture, in words: what fits one of these better is no object."""
GROWN = 0.05
"""By this part of the view's side a machine's masks grow, as cells are coarse and what is left of an object outside its
mask would count as background."""


@dataclass(frozen=True, eq=False)
class SegmenterMasks:
    """The pixels that a segmenter gives one of some names."""

    segmenter: Segmenter
    objects: tuple[str, ...] = ()
    grown: float = GROWN
    by_hand = False

    def __post_init__(self) -> None:
        strange = [name for name in self.objects if name not in self.segmenter.classes]
        if strange:
            raise DataError(
                f"The object {strange[0]!r} was given. One of the segmenter's classes ({some(self.segmenter.classes)}) "
                "was expected. Name one of them."
            )

    @property
    def told(self) -> str:
        return f"of the segmenter {self.segmenter.method} on {self.segmenter.base.name}, for {_called(self.objects)}"

    @property
    def seal(self) -> str:
        tensors = (t.detach().cpu().numpy().tobytes() for t in self.segmenter.scorer.tensors().values())
        parts = (self.told, self.grown, self.segmenter.classes, self.segmenter.base.fingerprint)
        return hashlib.sha256(repr(parts).encode() + b"".join(tensors)).hexdigest()

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        names = self.objects or (sample.label,)
        if names[0] not in self.segmenter.classes:
            raise ImageError(
                sample.image,
                f"is of the class {sample.label!r}, which the segmenter does not know; name the object, or use a "
                "segmenter of these classes",
            )
        # A picture that is neither a file nor at hand is segmented as the model sees it.
        there = sample.pixels is not None or os.path.exists(sample.image)
        found = self.segmenter.segment(sample.source if there else picture.pixels)
        drawn = np.isin(found.mask, [self.segmenter.classes.index(name) for name in names])
        mask = in_view(drawn, picture) if there else torch.from_numpy(drawn)
        by = round(self.grown * max(picture.pixels.shape[:2]))
        if by and bool(mask.any()):
            mask = max_pool2d(mask[None, None].float(), 2 * by + 1, 1, by)[0, 0] > 0
        return usable(mask, sample.image, f"what is found of {_called(names)}")


@dataclass(frozen=True, eq=False)
class WordMasks:
    """The same without a segmenter of one's own: MaskCLIP, by the object's words against words for the rest."""

    encoder: Encoder
    objects: tuple[str, ...] = ()
    rest: tuple[str, ...] = REST
    store: FeatureStore | None = None
    grown: float = GROWN
    by_hand = False
    _made: dict[tuple[str, ...], SegmenterMasks] = field(default_factory=dict, repr=False)

    @property
    def told(self) -> str:
        return f"MaskCLIP's on {self.encoder.name}, for {_called(self.objects)} against {', '.join(self.rest)}"

    @property
    def seal(self) -> str:
        return f"{self.told} {self.grown:g} {self.encoder.fingerprint}"

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        names = self.objects or (sample.label,)
        if names not in self._made:
            rest = [word for word in self.rest if word not in names]
            segmenter = MaskCLIP(least_presence=0.0).build(self.encoder, [*names, *rest], self.store)
            self._made[names] = SegmenterMasks(segmenter, names, self.grown)
        return self._made[names].mask(sample, picture)


def _called(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names)) if names else "the name of each class"
