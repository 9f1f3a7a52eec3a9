"""The short way in: one call from names, descriptions or pictures to a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .classifiers.base import Classifier
from .data import Samples, load_samples
from .descriptions.base import Descriptions
from .encoders.base import Encoder
from .encoders.find import encoder as find
from .encoders.module import from_module
from .errors import InputError
from .listener import Listener
from .store import FeatureStore

__all__ = ["described", "fit", "from_module", "pretrained", "zero_shot"]

Words = Descriptions | Mapping[str, Sequence[str]] | str | Path
"""Descriptions, or a dictionary of them, or the JSON they are in."""


def _encoder(encoder: Encoder | str) -> Encoder:
    return encoder if isinstance(encoder, Encoder) else find(encoder)


def _descriptions(words: Words) -> Descriptions:
    if isinstance(words, Descriptions):
        return words
    return Descriptions.read(words) if isinstance(words, str | Path) else Descriptions.of(dict(words))


def pretrained(encoder: Encoder | str = "lite0", *, descriptions: Words | None = None) -> Classifier:
    """The encoder's own classes; for the embedded encoders, the 1,000 of ImageNet."""
    from .classifiers.pretrained import Pretrained

    return Pretrained().build(_encoder(encoder), None if descriptions is None else _descriptions(descriptions))


def zero_shot(labels: Sequence[str], encoder: Encoder | str = "lite0", **parameters: Any) -> Classifier:
    """Classes by name (:class:`seewhy.classifiers.zero_shot.ZeroShot`)."""
    from .classifiers.zero_shot import ZeroShot

    return ZeroShot(**parameters).build(_encoder(encoder), labels)


def described(descriptions: Words, encoder: Encoder | str = "lite0", **parameters: Any) -> Classifier:
    """Classes by written descriptions (:class:`seewhy.classifiers.described.Described`)."""
    from .classifiers.described import Described

    return Described(**parameters).build(_encoder(encoder), _descriptions(descriptions))


def fit(
    pictures: str | Path | Samples,
    encoder: Encoder | str = "lite0",
    *,
    validation: str | Path | Samples | None = None,
    group: str | None = None,
    descriptions: Words | None = None,
    store: FeatureStore | None = None,
    listener: Listener | None = None,
    **parameters: Any,
) -> Classifier:
    """A classifier of the user's pictures (:class:`seewhy.classifiers.linear.Linear`).

    Args:
        pictures: class folders, a table, or samples.
        validation: pictures of the same classes on which to choose and to measure; left out, a part of ``pictures``.
        group: which pictures belong together, of a table or of folders, as in :func:`seewhy.data.load_samples`; left
            out, those that look like the same thing. They are held out together.
        encoder: an encoder or its name.
        descriptions: of the classes, as words evidence.
        store: where looks are kept between runs; left out, nothing is kept.
        listener: hears of progress and failures.
        **parameters: those of the recipe, for example ``solver="svm"``.
    """
    from .classifiers.linear import Linear

    words = None if descriptions is None else _descriptions(descriptions)
    fitted = Linear(**parameters).fit(
        _encoder(encoder),
        _samples(pictures, group),
        validation=None if validation is None else _samples(validation),
        descriptions=words,
        store=store,
        listener=listener,
    )
    return replace(fitted, trust=fitted.measured_trust)


def _samples(source: str | Path | Samples, group: str | None = None) -> Samples:
    if not isinstance(source, Samples):
        return load_samples(source, group=group)
    if group is not None:
        raise InputError(
            f"group={group!r} was given beside samples, whose pictures carry their groups. A folder or a table was "
            "expected. Give load_samples the group."
        )
    return source
