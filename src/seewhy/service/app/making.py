"""An app from a classifier: state, pages, and what happens when it starts and stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from ...classifiers.base import Classifier
from .base import make_base
from .deciding import SCRIPT, Deciding
from .pages import Pages
from .settings import Settings
from .state import State


def make(classifier: Classifier, settings: Settings, data: Any, store: Any, corrections: Any) -> FastAPI:
    """See :func:`seewhy.service.app.make_app`; the extra is installed."""
    state = State(classifier, settings, data, store, corrections)
    state.wake()

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        if state.mistakes is not None:
            state.mistakes.start()
        yield
        state.worker.close()

    app = make_base("SeeWhy", settings, ("app.js", "card.js", SCRIPT), version=version("seewhy"), lifespan=life)
    Pages(state).mount(app)
    if corrections is not None and state.mistakes is not None:
        Deciding(corrections, state.mistakes.image_of).mount(app)
    app.state.seewhy = state
    return app
