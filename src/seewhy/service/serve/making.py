"""A service from models: addresses, middleware, and what happens when it starts and stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer

from ...classifiers.base import Classifier
from ...classifiers.saving import load as load_saved
from ...errors import UnknownNameError
from ..app.guard import Guard
from ..app.refusals import answer_errors
from .access_log import AccessLog
from .answers import ERRORS, Answers, ClientGone, gone
from .entrance import Door, Entrance, refuse
from .kserve import KServe
from .metrics import Metrics
from .models import Models
from .service import Service
from .settings import ServiceSettings


def make(
    models: Mapping[str, Classifier | Path],
    settings: ServiceSettings,
    load: Callable[[Path], Classifier] | None,
    log_to: int | None,
) -> FastAPI:
    """See :func:`seewhy.service.serve.make_service`; the extra is installed."""
    metrics = Metrics()
    loaded = Models(models, settings.web, load or load_saved, metrics)
    service = Service(settings, loaded, metrics, AccessLog(log_to, metrics.lines_dropped.inc))

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        service.reloader.start()
        yield
        service.close()

    options: dict[str, Any] = {"docs_url": None, "redoc_url": None, "responses": ERRORS, "lifespan": life}
    if settings.token is not None:
        options["dependencies"] = [Security(HTTPBearer(auto_error=False))]  # says so in the document; the door checks
    app = FastAPI(title="SeeWhy", version=version("seewhy"), **options)
    app.add_middleware(Door, service=service)
    app.add_middleware(Guard, settings=settings.web, refuse=refuse)
    app.add_middleware(Entrance, service=service)
    answer_errors(app, refuse, {UnknownNameError: 404})
    app.add_exception_handler(ClientGone, gone)
    Answers(service).mount(app)
    KServe(service).mount(app)
    app.state.service = service
    return app
