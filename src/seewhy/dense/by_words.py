"""``seewhy.segment``: from a picture and names to what is where, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Unpack, overload

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.find import encoder as find
from ..errors import InputError
from ..keywords import SegmentKeywords
from ..pictures.sources import Many, One, several
from ..storage.features import FeatureStore
from ..types import Failure
from . import segmenters
from .clipseg import PretrainedSegmenter
from .maskclip import MaskCLIP
from .segmentation import Segmentation
from .segmenter import Segmenter


@overload
def segment(  # type: ignore[overload-overlap]
    picture: One,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    store: FeatureStore | None = None,
    **parameters: Unpack[SegmentKeywords],
) -> Segmentation: ...
@overload
def segment(
    picture: Many,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    store: FeatureStore | None = None,
    **parameters: Unpack[SegmentKeywords],
) -> list[Segmentation | Failure]: ...
@checked
def segment(
    picture: One | Many,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    store: FeatureStore | None = None,
    **parameters: Unpack[SegmentKeywords],
) -> Segmentation | list[Segmentation | Failure]:
    """What is where in a picture, or in several, by words (:class:`seewhy.dense.maskclip.MaskCLIP`).

    Args:
        picture: a file name, pixels, or several of them (:mod:`seewhy.pictures.sources`).
        labels: what may be in it, at least two names.
        encoder: one with words, or its name.
        store: where sentences are kept between runs; left out, nothing is kept.
        **parameters: those of the method, for example ``zoom=4``.

    Returns:
        The mask and what was found, which displays itself in a notebook; ``save("seg.html")`` writes it.

    Raises:
        ImageError: the one picture cannot be read; of several, such are failures among the others.
        DataError: fewer than two names, more than 255, or one of them twice.
        ModelError: the encoder has no words, or its head cannot take a cell alone.
    """
    segmenter = MaskCLIP(**parameters).build(encoder if isinstance(encoder, Encoder) else find(encoder), labels, store)
    many = several(picture)
    one: Any = picture
    return segmenter.segment(one) if many is None else list(segmenter.segment_all(many))


def segmenter_for(
    segmenter: str,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    engine: str = "auto",
    store: FeatureStore | None = None,
    **parameters: Any,
) -> Segmenter | PretrainedSegmenter:
    """A segmenter that is not trained, by its name; one without weights of its own stands on the encoder.

    Args:
        segmenter: a registered name, ``"clipseg:/folder"`` where it has weights of its own.
        labels: what may be in the pictures.
        encoder: one with words, or its name.
        engine: what runs the encoder.
        store: where sentences are kept.
        **parameters: those of the segmenter.

    Raises:
        UnknownNameError: there is no such segmenter.
        InputError: it is trained, has no such parameter, or has no weights of its own where a folder is given.
        DataError: fewer than two names, more than 255, or one of them twice.
        ModelError: the encoder has no words, or the segmenter's weights cannot be used.
    """
    name, _, folder = segmenter.partition(":")
    method = segmenters[name]
    if not hasattr(method, "build"):
        raise InputError(
            f"The segmenter {name} is trained on masks, and only names were given. One of "
            f"{', '.join(n for n in segmenters if hasattr(segmenters[n], 'build'))} was expected. Train it with "
            "seewhy fit-segmenter."
        )
    names = [f.name for f in fields(method)]
    if unknown := [p for p in parameters if p not in names]:
        raise InputError(
            f"The segmenter {name} has no parameter {unknown[0]!r}. One of {', '.join(names)} was expected. Leave it "
            "out."
        )
    own = getattr(method, "takes_folder", False)
    if folder and not own:
        raise InputError(f"The segmenter {name} has no weights of its own, and {folder} was given. Leave it out.")
    how: Any = method(**parameters)
    if own:
        return how.build(labels, folder or None)
    looks = encoder if isinstance(encoder, Encoder) else find(encoder, engine=engine)
    return how.build(looks, labels, store)
