"""``seewhy.segment`` and ``seewhy.detect``: find named objects in a picture in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.find import encoder as find
from ..errors import DataError, ImageError, InputError
from ..pictures.images import Picture
from ..pictures.object_masks import in_view, usable
from ..pictures.samples import Sample, some
from ..pictures.sources import Many, One, several
from ..registry import Registry
from ..storage.features import FeatureStore
from ..storage.tensors import tensors_digest
from ..types import Failure
from . import detectors, segmenters
from .finders import Segmenter
from .maskclip import MaskCLIP
from .regions import Detections, Segmentation


@overload
def segment(picture: One, labels: Iterable[str], encoder: Encoder | str = ..., **parameters: Any) -> Segmentation: ...
@overload
def segment(
    picture: Many, labels: Iterable[str], encoder: Encoder | str = ..., **parameters: Any
) -> list[Segmentation | Failure]: ...
@checked
def segment(
    picture: One | Many,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    segmenter: str = "maskclip",
    store: FeatureStore | None = None,
    **parameters: Any,
) -> Segmentation | list[Segmentation | Failure]:
    """Assign one of the given names to every pixel of a picture or of several pictures.

    Args:
        picture: a file name or an array of pixels, or a collection of them (:mod:`seewhy.pictures.sources`). In a
            collection, an unreadable picture gives a :class:`seewhy.Failure`.
        labels: at least two names that may be in the picture.
        encoder: an image-text encoder, or its name.
        segmenter: a registered name, or ``"clipseg:/folder"`` for a network with its own weights.
        store: cache of encoded sentences; default: no cache.
        **parameters: settings of the method, for example ``zoom=4``.

    Returns:
        The mask and its segments, or a list of them for a collection. A notebook displays them; ``save("seg.html")``
        writes a page.
    """
    return _found(finder_for(segmenters, segmenter, labels, encoder, store=store, **parameters), picture)


@overload
def detect(picture: One, labels: Iterable[str], encoder: Encoder | str = ..., **parameters: Any) -> Detections: ...
@overload
def detect(
    picture: Many, labels: Iterable[str], encoder: Encoder | str = ..., **parameters: Any
) -> list[Detections | Failure]: ...
@checked
def detect(
    picture: One | Many,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    detector: str = "word_regions",
    store: FeatureStore | None = None,
    **parameters: Any,
) -> Detections | list[Detections | Failure]:
    """Draw boxes around named objects in a picture or in several pictures.

    The arguments ``picture``, ``encoder``, ``store`` and ``**parameters`` are those of :func:`segment`.

    Args:
        labels: names of the objects to find, at least one.
        detector: a registered name, or ``"owlv2:/folder"`` for a network with its own weights, which needs no encoder.

    Returns:
        Boxes with names and scores, or a list of them for a collection. A notebook displays them; ``save("det.html")``
        writes a page.
    """
    return _found(finder_for(detectors, detector, labels, encoder, store=store, **parameters), picture)


def _found(finder: Any, picture: Any) -> Any:
    many = several(picture)
    return finder.find(picture) if many is None else list(finder.find_all(many))


def finder_for(
    registry: Registry[Any],
    name: str,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    engine: str = "auto",
    store: FeatureStore | None = None,
    **parameters: Any,
) -> Any:
    """Build a zero-shot method from ``"name"`` or ``"name:folder"``."""
    (name, _, folder), kind = name.partition(":"), registry.kind
    method = registry[name]
    if not hasattr(method, "build"):
        raise InputError(
            f"The {kind} {name} must be trained on pictures before it can be used. Choose one of "
            f"{', '.join(n for n in registry if hasattr(registry[n], 'build'))}, or train it: seewhy fit --task "
            f"{'masks' if kind == 'segmenter' else 'boxes'} DATA -o FOLDER --method {name}."
        )
    names = [f.name for f in fields(method)]
    if unknown := [p for p in parameters if p not in names]:
        raise InputError(f"The {kind} {name} has no parameter {unknown[0]!r}. Its parameters are {', '.join(names)}.")
    how = method(**parameters)
    if getattr(method, "takes_folder", False):
        return how.build(labels, folder=folder or None)
    if folder:
        raise InputError(f"The {kind} {name} takes no folder of weights, got {folder!r}.")
    looks = encoder if isinstance(encoder, Encoder) else find(encoder, engine=engine)
    return how.build(labels=labels, encoder=looks, store=store)


REST = ("background", "ground", "sky", "plants", "water", "wall")
"""Names of common backgrounds, which compete with the name of the object."""
GROWN = 0.05
"""Distance by which generated masks are widened, as a share of the picture's side."""


@dataclass(frozen=True, eq=False)
class SegmenterMasks:
    """Object masks predicted by a segmenter."""

    segmenter: Segmenter
    objects: tuple[str, ...] = ()
    grown: float = GROWN
    by_hand = False

    def __post_init__(self) -> None:
        strange = [name for name in self.objects if name not in self.segmenter.classes]
        if strange:
            raise DataError(f"The segmenter has no class {strange[0]!r}. Choose one of {some(self.segmenter.classes)}.")

    @property
    def told(self) -> str:
        return f"of the segmenter {self.segmenter.method} on {self.segmenter.base.name}, for {_called(self.objects)}"

    @property
    def seal(self) -> str:
        parts = (self.told, self.grown, self.segmenter.classes, self.segmenter.base.fingerprint)
        return tensors_digest(self.segmenter.scorer.tensors(), repr(parts))

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        names = self.objects or (sample.label,)
        if names[0] not in self.segmenter.classes:
            raise ImageError(
                sample.image,
                f"the segmenter does not know its class {sample.label!r}. Name the object, or use a segmenter with "
                "this class",
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
    """Object masks predicted by MaskCLIP, without training."""

    encoder: Encoder
    objects: tuple[str, ...] = ()
    store: FeatureStore | None = None
    by_hand = False
    _made: dict[tuple[str, ...], SegmenterMasks] = field(default_factory=dict, repr=False)

    @property
    def told(self) -> str:
        return f"MaskCLIP's on {self.encoder.name}, for {_called(self.objects)} against {', '.join(REST)}"

    @property
    def seal(self) -> str:
        return f"{self.told} {GROWN:g} {self.encoder.fingerprint}"

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        names = self.objects or (sample.label,)
        if names not in self._made:
            rest = [word for word in REST if word not in names]
            segmenter = MaskCLIP(least_presence=0.0).build(self.encoder, [*names, *rest], self.store)
            self._made[names] = SegmenterMasks(segmenter, names)
        return self._made[names].mask(sample, picture)


def _called(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names)) if names else "the name of each class"
