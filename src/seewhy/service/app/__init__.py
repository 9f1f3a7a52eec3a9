"""The web pages; they require the extra ``app``, which is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...classifiers.base import Classifier
from ...errors import needs
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
    unlabelled: Samples | None = None,
    sources: Sequence[Path] = (),
) -> FastAPI:
    """Return the pages of a classifier as an ASGI app.

    ``data`` adds a page of mistakes, and ``corrections`` lets people correct its labels. ``unlabelled`` pictures are
    shown with ``data``, for labelling. ``store`` caches features of both, never of uploaded pictures. ``sources`` are
    the folder or table of ``data``, then that of ``unlabelled``: the page says what changes there.
    """
    with needs("app", "The page"):
        from .pages import make
        from .rows import with_unlabelled
        from .state import State
    shown = data if data is None or unlabelled is None else with_unlabelled(data, unlabelled)
    return make(State(classifier, settings or Settings(), shown, store, corrections), sources)
