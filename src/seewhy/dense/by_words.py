"""``seewhy.segment``: from a picture and names to what is where, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack, overload

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.find import encoder as find
from ..keywords import SegmentKeywords
from ..pictures.sources import Many, One, several
from ..storage.features import FeatureStore
from ..types import Failure
from .maskclip import MaskCLIP
from .segmentation import Segmentation


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
