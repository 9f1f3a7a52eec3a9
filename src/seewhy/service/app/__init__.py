"""The page: drop a picture, see the card, ask further. Needs the extra ``app``, and nothing of it is loaded before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...classifiers.base import Classifier
from ...errors import MissingExtraError
from ...language.annotation.labels import Corrections
from ...pictures.samples import Samples
from ...storage.features import FeatureStore
from .settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Settings", "make_app", "serve"]


def make_app(
    classifier: Classifier,
    settings: Settings | None = None,
    *,
    data: Samples | None = None,
    store: FeatureStore | None = None,
    corrections: Corrections | None = None,
) -> FastAPI:
    """The pages of a classifier as an ASGI app.

    Args:
        classifier: what is asked.
        settings: limits and choices.
        data: labelled pictures, to browse what it gets wrong.
        store: where looks at ``data`` and sentences are kept; pictures that readers send are never kept there.
        corrections: where decisions on the labels of ``data`` are kept; left out, labels cannot be decided on.

    Raises:
        MissingExtraError: the extra ``app`` is not installed.
        DataError: no label of ``data`` is one of the classifier's classes.
    """
    try:
        from .pages import make
    except ImportError as error:
        raise MissingExtraError("app", "The page") from error
    return make(classifier, settings or Settings(), data, store, corrections)


def serve(app: Any, settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve an app until it is stopped.

    Args:
        app: of :func:`make_app`.
        settings: host and port.
        ready: called with the address once it can be asked.

    Raises:
        MissingExtraError: the extra ``app`` is not installed.
        InputError: the address cannot be listened on.
    """
    try:
        from .serving import run
    except ImportError as error:
        raise MissingExtraError("app", "The page") from error
    run(app, settings, ready)
