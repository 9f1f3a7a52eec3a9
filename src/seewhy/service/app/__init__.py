"""The page: drop a picture, see the card, ask further. Needs the extra ``app``, and nothing of it is loaded before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...classifiers.base import Classifier
from ...errors import MissingExtraError
from ...language.annotation.labels import Corrections
from ...pictures.samples import Samples
from ...storage.features import FeatureStore
from .settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Settings", "make_app"]


def make_app(
    classifier: Classifier,
    settings: Settings | None = None,
    *,
    data: Samples | None = None,
    store: FeatureStore | None = None,
    corrections: Corrections | None = None,
) -> FastAPI:
    """The pages of a classifier as an ASGI app.

    With ``data`` one browses what it gets wrong, with ``corrections`` decides on its labels. Looks at ``data`` are kept
    in the store, pictures that readers send never.
    """
    try:
        from .pages import make
    except ImportError as error:
        raise MissingExtraError("app", "The page") from error
    return make(classifier, settings or Settings(), data, store, corrections)
