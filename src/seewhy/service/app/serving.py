"""Listening: one socket, one server, stopped by Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from ...errors import InputError
from .connection import connection
from .decoder import decoder_with
from .settings import Settings

MOST_CONNECTIONS = 500


def run(app: Any, settings: Settings, ready: Callable[[str], None]) -> None:
    """See :func:`seewhy.service.app.serve`; the extra is installed."""
    with listen(settings.host, settings.port) as listening:
        ready(address(settings.host, listening.getsockname()[1]))
        try:
            with contextlib.suppress(KeyboardInterrupt):
                make_server(app, settings).run(sockets=[listening])
        finally:
            decoder_with(settings.decode_seconds, settings.n_waiting).stop()


def make_server(app: Any, settings: Settings) -> uvicorn.Server:
    """A server with all limits set."""
    return uvicorn.Server(limited(app, settings))


def limited(app: Any, settings: Settings) -> uvicorn.Config:
    """A server's configuration with all limits set."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=connection(settings),
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; clients that come before the server wait on it."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=512)
        # asyncio sets this only on sockets that name their protocol, which accepted ones here do not.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise InputError(
            f"{host} port {port} cannot be listened on: {(error.strerror or str(error)).lower()}. "
            "Give another --port (0 takes a free one) or --host."
        ) from error


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"
