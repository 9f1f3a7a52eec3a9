"""The HTTP server, with limits on the time and size of requests."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...errors import InputError
from .settings import Settings
from .worker import decoder_with

MOST_CONNECTIONS = 500
MOST_HEAD_BYTES = 32_000
MOST_PIECES = 1000
LEAST_PIECE = 64
"""Minimum mean bytes per piece of a body, after the first ``MOST_PIECES`` pieces."""


def run(app: Any, settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve an app until it is stopped; ``ready`` is called with the address once the server answers."""
    with listen(settings.host, settings.port) as listening:
        ready(address(settings.host, listening.getsockname()[1]))
        try:
            with contextlib.suppress(KeyboardInterrupt):
                PageServer(limited(app, settings)).run(sockets=[listening])
        finally:
            decoder_with(settings.decode_seconds, settings.n_waiting).stop()


class PageServer(uvicorn.Server):
    """A Uvicorn server that stops on ``SIGHUP`` as on ``SIGTERM``, unless ``SIGHUP`` is ignored, as under ``nohup``."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        hang_up = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
        with super().capture_signals():
            before = signal.getsignal(hang_up)
            if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
                yield
                return
            signal.signal(hang_up, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(hang_up, before)


def limited(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=functools.partial(PatientConnection, limits=settings),  # type: ignore[arg-type]
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; clients that connect before the server runs wait."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=512)
        # asyncio sets this only on sockets that name their protocol, which accepted ones here do not.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise InputError(
            f"The server cannot listen on {host}, port {port}: {(error.strerror or str(error)).lower()}. Give another "
            "--port (0 picks a free one) or --host."
        ) from error


def address(host: str, port: int) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"


class StrictFraming(h11.Connection):
    """An h11 connection that refuses ambiguous framing (RFC 9112, section 6.1) and bodies in tiny pieces."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._body_bytes = 0
            names = {name for name, _ in event.headers}
            if b"transfer-encoding" in names and (b"content-length" in names or event.http_version < b"1.1"):
                raise h11.RemoteProtocolError("the request states its length in two ways")
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._body_bytes += len(event.data)
            if self._pieces > MOST_PIECES + self._body_bytes // LEAST_PIECE:
                raise h11.RemoteProtocolError("the body comes in too many tiny pieces")
        return event


class PatientConnection(H11Protocol):
    """Uvicorn's HTTP/1.1 protocol with time limits against slow clients (slowloris)."""

    def __init__(self, *, limits: Settings, **options: Any) -> None:
        super().__init__(**options)
        self.conn = StrictFraming(h11.SERVER, MOST_HEAD_BYTES)
        self.limits = limits
        self._until: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_at_most(self.limits.head_seconds)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_waiting()
        elif self.conn.their_state is h11.IDLE:  # silent between requests, until the first byte of the next head
            self._wait_at_most(self.limits.head_seconds)
        elif self.cycle is not None and self.cycle.response_complete:  # the rest of a body that was refused
            self._wait_at_most(self.limits.body_seconds)
        else:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Send Uvicorn's error if no answer has begun, otherwise close the connection."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection once the client has read its answer, or after a time limit."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.limits.request_seconds, self.transport.abort)

    def _wait_at_most(self, seconds: float) -> None:
        if self._until is None:
            self._until = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None

    def _give_up(self) -> None:
        self._until = None
        self.transport.abort()
