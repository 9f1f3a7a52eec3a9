"""Middleware for request ids, metrics and the access log, and for draining, rate limit and token."""

from __future__ import annotations

import hmac
import ipaddress
import json
import math
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import Visit

if TYPE_CHECKING:
    from .service import Service

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
MOST_WAITING = 10_000


class Metrics:
    """The Prometheus metrics of one service."""

    def __init__(self) -> None:
        self.registry = to = CollectorRegistry()
        ProcessCollector(registry=to)
        counter, gauge = partial(Counter, registry=to), partial(Gauge, registry=to)
        histogram = partial(Histogram, registry=to)
        self.requests = counter("seewhy_requests", "Requests answered.", ("path", "method", "status"))
        until = "Seconds from the request's head to its answer."
        self.seconds = histogram("seewhy_request_seconds", until, ("path",), buckets=SECONDS)
        self.pictures = counter("seewhy_pictures", "Pictures, by outcome.", ("model", "outcome"))
        self.batch = histogram("seewhy_batch_pictures", "Pictures per batch.", ("model",), buckets=SIZES)
        engine = "Seconds that the engine took for a batch."
        self.batch_seconds = histogram("seewhy_batch_seconds", engine, ("model",), buckets=SECONDS)
        self.reloads = counter("seewhy_reloads", "Models reloaded, by outcome.", ("model", "outcome"))
        self.running = gauge("seewhy_running", "Requests in progress.")
        self.lines_dropped = counter("seewhy_log_lines_dropped", "Lines of the access log that were dropped.")
        self.waiting = gauge("seewhy_waiting", "Waiting pictures and jobs, by model.", ("model",))
        self.stale = gauge("seewhy_stale", "1 if the newest saved model could not be loaded, by model.", ("model",))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class AccessLog:
    """A writer of lines to a file descriptor; lines that cannot be written are dropped and counted."""

    def __init__(self, to: int | None, dropped: Callable[[], None]) -> None:
        self.to = to
        self.dropped = dropped
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._torn = False
        self._thread = threading.Thread(target=self._run, name="seewhy-log", daemon=True)
        if to is not None:
            self._thread.start()

    def write(self, line: dict[str, Any]) -> None:
        """Queue a line without waiting."""
        if self.to is None:
            return
        try:
            self._lines.put_nowait(json.dumps(line).encode("ascii") + b"\n")
        except queue.Full:
            self.dropped()

    def close(self) -> None:
        """Write the queued lines, within two seconds."""
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=1)
            except queue.Full:
                return
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(b"\n" + line if self._torn else line)
                self._torn = False
            except OSError:
                self.dropped()

    def _write(self, data: bytes) -> None:
        assert isinstance(self.to, int)
        while data:
            n = os.write(self.to, data)
            self._torn, data = n < len(data), data[n:]


VISIT = "seewhy.visit"
WITHOUT_TOKEN = frozenset(("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"))
WELCOME = frozenset(("/", "/docs"))
"""Pages for browsers, which need no token."""
WHILE_DRAINING = WITHOUT_TOKEN | {"/metrics", "/version"}
LONGEST_ID = 128
N_CLIENTS = 10_000
"""Maximum number of addresses with a rate limit; the least recently seen is dropped."""


def request_id(headers: Headers) -> str:
    """Return the client's id if it is short printable ASCII, otherwise a new one."""
    given = headers.get("x-request-id", "")
    fits = 0 < len(given) <= LONGEST_ID and all("!" <= sign <= "~" for sign in given)
    return given if fits else uuid.uuid4().hex


def refuse(request: Request, status: int, text: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": text}, status, {name.replace("_", "-"): value for name, value in headers.items()})


def wants_page(request: Request) -> bool:
    """Return whether to answer with a page: at ``/docs``, and to browsers elsewhere; other clients get JSON."""
    return request.url.path == "/docs" or "text/html" in request.headers.get("accept", "")


class Entrance:
    """The outermost ASGI middleware: request ids, metrics and the access log."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(id=request_id(Headers(scope=scope)))
        scope[VISIT] = visit

        async def take() -> Message:
            message = await receive()
            visit.bytes_in += len(message.get("body", b""))
            return message

        async def give(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = visit.id
                if self.service.draining:
                    headers["connection"] = "close"
            visit.bytes_out += len(message.get("body", b""))
            await send(message)

        self.service.n_running += 1
        try:
            await self.app(scope, take, give)
        finally:
            self.service.n_running -= 1
            self._note(scope, visit)

    def _note(self, scope: Scope, visit: Visit) -> None:
        seconds, metrics = time.monotonic() - visit.start, self.service.metrics
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        metrics.requests.labels(route, method, str(visit.status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        visit.time, visit.seconds = datetime.now(UTC).isoformat(timespec="milliseconds"), seconds
        visit.client, visit.method, visit.path = _address(scope), scope["method"], scope["path"][:500]
        self.service.log.write(visit.to_json())


def _address(scope: Scope) -> str:
    client: Any = scope.get("client")
    return str(client[0]) if client else ""


class Door:
    """ASGI middleware inside the guard: draining, rate limit and token."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service
        self.rates = Rates(service.settings.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            answer = self._refusal(Request(scope))
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, request: Request) -> JSONResponse | None:
        path, settings = request.scope["path"], self.service.settings
        if self.service.draining and path not in WHILE_DRAINING:
            text = "The service is stopping. Try another one, or try again in a few seconds."
            return refuse(request, 503, text, retry_after="5")
        if path in WITHOUT_TOKEN:
            return None
        wait = self.rates.wait(_address(request.scope))
        if wait > 0:
            text = f"This address sent more than the limit of {settings.rate:g} requests per minute. Try again later."
            return refuse(request, 429, text, retry_after=str(math.ceil(wait)))
        if settings.token is None or (path in WELCOME and wants_page(request)):
            return None
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        is_token = hmac.compare_digest(given.strip().encode("latin-1"), settings.token.encode("ascii"))
        if kind.lower() == "bearer" and is_token:
            return None
        text = "The request has no token, or a wrong one. Send the header Authorization: Bearer TOKEN."
        return refuse(request, 401, text, www_authenticate="Bearer")


class Rates:
    """Rate limits by address: token buckets that hold the requests of up to a minute."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, address: str) -> float:
        """Return the seconds to wait before the next request; 0 admits this one."""
        if self.rate is None:
            return 0.0
        now, most = time.monotonic(), max(1.0, self.rate)
        key = _network(address)
        left, seen = self._buckets.pop(key, (most, now))
        left = min(most, left + (now - seen) * self.rate / 60)
        taken = left >= 1
        self._buckets[key] = (left - taken, now)
        if len(self._buckets) > N_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if taken else (1 - left) * 60 / self.rate


def _network(address: str) -> str:
    """Return the address, or the /64 network of an IPv6 address, because one client has a whole network."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
