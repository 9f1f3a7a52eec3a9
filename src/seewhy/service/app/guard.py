"""ASGI middleware that checks host, origin, size and time of every request, and sets the security headers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import MEGABYTE, Settings

HEADERS = {
    # Style attributes place boxes and bars on the card; scripts come from this server alone.
    "content-security-policy": (
        "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; script-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Under "no-referrer", browsers send "Origin: null" with the page's own forms too.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
SAFE = ("GET", "HEAD", "OPTIONS")

Refuse = Callable[[Request, int, str], Response]
"""Function from request, status and message to the error as a page or JSON."""

_logger = logging.getLogger(__name__)


class Guard:
    """ASGI middleware for every request and answer.

    * **Host**: must be an address, ``localhost``, or a name given to the server. Other names may be foreign sites that
      resolve to this machine (DNS rebinding).
    * **Origin**: a request that changes data must come from SeeWhy's own pages or from no page. Other sites may link to
      a page but not load it.
    * **Size and time**: a body has at most ``max_upload`` bytes, and all bodies together ``max_held``. A body must
      arrive within ``body_seconds``, and an answer must begin within ``request_seconds``.
    * **Errors**: an unexpected error is logged, and its message is not sent.
    """

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Refuse) -> None:
        self.app = app
        self.settings = settings
        self.refuse = refuse
        self.held = 0
        """Bytes of the bodies of all running requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request, answer = Request(scope), _Answer(send)
        problem = self._problem(request)
        if problem is not None:
            await self.refuse(request, *problem)(scope, receive, answer)
            return
        body = _Body(receive, self)
        try:
            async with asyncio.timeout(self.settings.request_seconds):
                await self.app(scope, body, answer)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except TimeoutError:
            text = f"The answer took more than the limit of {self.settings.request_seconds:g} seconds. Try again."
            await self._fail(request, answer, 504, text, receive)
        except Exception:
            _logger.exception("an error while answering %s %s", scope["method"], scope["path"])
            text = "An unexpected error occurred on the server; see its log. Try again."
            await self._fail(request, answer, 500, text, receive)
        finally:
            self.held -= body.n_bytes

    async def _fail(self, request: Request, answer: _Answer, status: int, text: str, receive: Receive) -> None:
        if not answer.begun:
            await self.refuse(request, status, text)(request.scope, receive, answer)

    def _problem(self, request: Request) -> tuple[int, str] | None:
        if not self._host_allowed(request.headers.get("host", "")):
            return 421, "This host name is not allowed. To allow it, start the server with --name NAME."
        if not (same_origin(request.headers) if request.method not in SAFE else no_part_of_another(request.headers)):
            return 403, "This request came from another site. Send it from a page of this server."
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self.settings.max_upload:
            return 413, too_large(self.settings.max_upload)
        return None

    def _host_allowed(self, header: str) -> bool:
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.settings.host.lower(), *(n.lower() for n in self.settings.names)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class _Body:
    """The body of a request, with limits on its size, its time and the size of all bodies."""

    def __init__(self, receive: Receive, guard: Guard) -> None:
        self._receive = receive
        self._guard = guard
        self._until = asyncio.get_running_loop().time() + guard.settings.body_seconds
        self._more = True
        self.n_bytes = 0

    async def __call__(self) -> Message:
        if not self._more:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "The picture arrived too slowly. Try again.") from None
        n_bytes, settings = len(message.get("body", b"")), self._guard.settings
        self.n_bytes += n_bytes
        self._guard.held += n_bytes
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        if self.n_bytes > settings.max_upload:
            raise HTTPException(413, too_large(settings.max_upload))
        if self._guard.held > settings.max_held:
            raise HTTPException(
                503, "Too many pictures are arriving at once. Try again in a few seconds.", {"retry-after": "2"}
            )
        return message


class _Answer:
    """Adds the security headers to an answer, and records that it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await self._send(message)


def same_origin(headers: Headers) -> bool:
    """Return whether a request comes from SeeWhy's own pages or from no page."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    except ValueError:
        return False


def no_part_of_another(headers: Headers) -> bool:
    """Return whether a request opens a page or is part of SeeWhy's own page."""
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return True
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest", "document") == "document"


def too_large(most: int) -> str:
    return (
        f"The request is larger than the limit of {most / MEGABYTE:.3g} MB. Send a smaller "
        "picture, or start with --set max_upload."
    )
