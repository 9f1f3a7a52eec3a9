"""Listening, and stopping without cutting anybody off."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from ..app.decoder import decoder_with
from ..app.serving import address, limited, listen
from .service import Service


class DrainingServer(uvicorn.Server):
    """Uvicorn's server, which upon a signal refuses what is new and ends when what runs has been answered.

    Args:
        config: of uvicorn.
        service: told that it is being stopped; says what runs.
    """

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
    """See :func:`seewhy.service.serve.serve`; the extra is installed."""
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
