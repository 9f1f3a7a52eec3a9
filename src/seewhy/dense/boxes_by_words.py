"""``seewhy.detect``: from a picture and names to what is where, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, cast, overload

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.find import encoder as find
from ..errors import InputError
from ..pictures.sources import Many, One, several
from ..storage.features import FeatureStore
from ..types import Failure
from . import detectors
from .detections import Detections
from .detector import Detector


@overload
def detect(
    picture: One,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    detector: str = "word_regions",
    store: FeatureStore | None = None,
    **parameters: Any,
) -> Detections: ...
@overload
def detect(
    picture: Many,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    detector: str = "word_regions",
    store: FeatureStore | None = None,
    **parameters: Any,
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
        picture: a file name, pixels, or several of them (:mod:`seewhy.pictures.sources`).
        labels: what to look for, at least one name.
        encoder: one with words, or its name; a detector with weights of its own takes none.
        detector: a registered name, ``"owlv2:/folder"`` where it has weights of its own.
        store: where sentences are kept between runs; left out, nothing is kept.
        **parameters: those of the detector, for example ``least=0.3``.

    Returns:
        Boxes with names and scores, which display themselves in a notebook; ``save("det.html")`` writes them.

    Raises:
        ImageError: the one picture cannot be read; of several, such are failures among the others.
        DataError: no name, or one of them twice.
        UnknownNameError: there is no such detector.
        InputError: the detector has no such parameter.
        ModelError: the encoder has no words, or the detector's weights cannot be used.
    """
    built = detector_for(detector, labels, encoder, store=store, **parameters)
    many, one = several(picture), cast(One, picture)
    return built.detect(one) if many is None else list(built.detect_all(many))


def detector_for(
    detector: str,
    labels: Iterable[str],
    encoder: Encoder | str = "lite0",
    *,
    engine: str = "auto",
    store: FeatureStore | None = None,
    **parameters: Any,
) -> Detector:
    """A detector by its name; one without weights of its own stands on the encoder."""
    name, _, folder = detector.partition(":")
    method = detectors[name]
    if not hasattr(method, "build"):
        raise InputError(
            f"The detector {name} finds what it was shown, and was given names alone. One that reads words was "
            f"expected. Fit it first: seewhy fit-detector DATA -o det --method {name}."
        )
    names = [f.name for f in fields(method)]
    if unknown := [p for p in parameters if p not in names]:
        raise InputError(
            f"The detector {name} has no parameter {unknown[0]!r}. One of {', '.join(names)} was expected. "
            "Leave it out."
        )
    if folder and not method.takes_folder:
        raise InputError(f"The detector {name} has no weights of its own, and {folder} was given. Leave it out.")
    looks = None
    if not method.takes_folder:
        looks = encoder if isinstance(encoder, Encoder) else find(encoder, engine=engine)
    return method(**parameters).build(labels, looks, folder or None, store)
