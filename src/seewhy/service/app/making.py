"""An app from a classifier: state, pages, and what happens when it starts and stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from ...classifiers.base import Classifier
from ...language.annotation.labels import Corrections
from ...pictures.samples import Samples
from ...storage.features import FeatureStore
from .base import make_base
from .browsing import BrowsingPages
from .deciding import SCRIPT, Deciding
from .pages import Pages
from .settings import Settings
from .state import State

SCRIPTS = ("app.js", "card.js", SCRIPT)


def make(
    classifier: Classifier,
    settings: Settings,
    data: Samples | None,
    store: FeatureStore | None,
    corrections: Corrections | None,
) -> FastAPI:
    """See :func:`seewhy.service.app.make_app`; the extra is installed."""
    state = State(classifier, settings, data, store, corrections)
    state.wake()

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        if state.mistakes is not None:
            state.mistakes.start()
        yield
        state.worker.close()

    app = make_base("SeeWhy", settings, SCRIPTS, version=version("seewhy"), lifespan=life)
    Pages(state).mount(app)
    BrowsingPages(state).mount(app)
    if corrections is not None and state.mistakes is not None:
        Deciding(corrections, state.mistakes.image_of).mount(app)
    app.state.seewhy = state
    return app
