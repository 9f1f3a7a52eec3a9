"""A service from models, listening, and stopping without cutting anybody off."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer

from ...classifiers.base import Classifier
from ...classifiers.saving import load as load_saved
from ...errors import UnknownNameError
from ..app.base import answer_errors
from ..app.guard import Guard
from ..app.serving import address, limited, listen
from ..app.worker import decoder_with
from .answers import ERRORS, Answers, ClientGone, gone
from .entrance import AccessLog, Door, Entrance, Metrics, refuse
from .service import Models, Service, ServiceSettings


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
    app.state.service = service
    return app


class DrainingServer(uvicorn.Server):
    """Uvicorn's server, which upon a signal refuses what is new and ends when what runs has been answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.until = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second one ends at once."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.until = time.monotonic() + self.service.settings.drain_seconds
        self.service.draining = True

    async def on_tick(self, counter: int) -> bool:
        if self.service.draining and (self.service.n_running == 0 or time.monotonic() > self.until):
            self.should_exit = True
        return await super().on_tick(counter)


def run(app: Any, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; what runs is answered first, and what comes meanwhile is refused."""
    service: Service = app.state.service
    web = service.settings.web
    service.wake()
    with listen(web.host, web.port) as listening:
        hang_up = getattr(signal, "SIGHUP", None)
        if hang_up is not None:
            signal.signal(hang_up, lambda *_: service.reloader.tell())
        ready(address(web.host, listening.getsockname()[1]))
        try:
            DrainingServer(limited(app, web), service).run(sockets=[listening])
        finally:
            decoder_with(web.decode_seconds, web.n_waiting).stop()
