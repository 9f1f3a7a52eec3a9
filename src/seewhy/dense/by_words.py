"""``seewhy.segment`` and ``seewhy.detect``: from a picture and names to what is where, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, overload

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.find import encoder as find
from ..errors import InputError
from ..pictures.sources import Many, One, several
from ..registry import Registry
from ..storage.features import FeatureStore
from ..types import Failure
from . import detectors, segmenters
from .finders import Detector, NamesPixels
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
    """What is where in a picture, or in several, by words (:class:`seewhy.dense.maskclip.MaskCLIP`).

    Args:
        picture: a file name, pixels, or several of them (:mod:`seewhy.pictures.sources`); of several, those that cannot
            be read are failures among the others.
        labels: what may be in it, at least two names.
        encoder: one with words, or its name.
        segmenter: a registered name, ``"clipseg:/folder"`` where it has weights of its own.
        store: where sentences are kept between runs; left out, nothing is kept.
        **parameters: those of the method, for example ``zoom=4``.

    Returns:
        The mask and what was found, which displays itself in a notebook; ``save("seg.html")`` writes it.
    """
    return _found(segmenter_for(segmenter, labels, encoder, store=store, **parameters), picture)


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
    """What is in a picture, or in several, and where, by words.

    Args:
        picture: as for :func:`segment`.
        labels: what to look for, at least one name.
        encoder: one with words, or its name; a detector with weights of its own takes none.
        detector: a registered name, ``"owlv2:/folder"`` where it has weights of its own.
        store: where sentences are kept between runs; left out, nothing is kept.
        **parameters: those of the detector, for example ``least=0.3``.

    Returns:
        Boxes with names and scores, which display themselves in a notebook; ``save("det.html")`` writes them.
    """
    return _found(detector_for(detector, labels, encoder, store=store, **parameters), picture)


def _found(finder: Any, picture: Any) -> Any:
    many = several(picture)
    return finder.find(picture) if many is None else list(finder.find_all(many))


def segmenter_for(name: str, labels: Iterable[str], encoder: Encoder | str = "lite0", **how: Any) -> NamesPixels:
    """A segmenter that is not trained, by its name."""
    return _finder_for(segmenters, name, labels, encoder, **how)


def detector_for(name: str, labels: Iterable[str], encoder: Encoder | str = "lite0", **how: Any) -> Detector:
    """A detector that is not trained, by its name."""
    return _finder_for(detectors, name, labels, encoder, **how)


def _finder_for(
    registry: Registry[Any],
    name: str,
    labels: Iterable[str],
    encoder: Encoder | str,
    *,
    engine: str = "auto",
    store: FeatureStore | None = None,
    **parameters: Any,
) -> Any:
    """``"name"`` or ``"name:folder"``; one without weights of its own stands on the encoder."""
    (name, _, folder), kind = name.partition(":"), registry.kind
    method = registry[name]
    if not hasattr(method, "build"):
        raise InputError(
            f"The {kind} {name} learns from pictures, and was given names alone. One of "
            f"{', '.join(n for n in registry if hasattr(registry[n], 'build'))} was expected. Fit it first: seewhy "
            f"fit-{kind} DATA -o FOLDER --method {name}."
        )
    names = [f.name for f in fields(method)]
    if unknown := [p for p in parameters if p not in names]:
        raise InputError(
            f"The {kind} {name} has no parameter {unknown[0]!r}. One of {', '.join(names)} was expected. Leave it out."
        )
    how = method(**parameters)
    if getattr(method, "takes_folder", False):
        return how.build(labels, folder=folder or None)
    if folder:
        raise InputError(f"The {kind} {name} has no weights of its own, and {folder} was given. Leave it out.")
    looks = encoder if isinstance(encoder, Encoder) else find(encoder, engine=engine)
    return how.build(labels=labels, encoder=looks, store=store)
