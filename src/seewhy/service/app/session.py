"""Which reader a request comes from, by a cookie."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .memory import Memory, Reader


def reader_of(memory: Memory, request: Request) -> Reader:
    """The reader of a request."""
    return memory.reader(request.cookies.get(_name(request)))


def signed(response: Response, request: Request, reader: Reader) -> Response:
    """The answer, by which the reader is known again."""
    response.set_cookie(_name(request), reader.id, httponly=True, samesite="strict")
    return response


def _name(request: Request) -> str:
    """Browsers send one machine's cookies to all its ports, and two pages may run here side by side."""
    server = request.scope.get("server")
    return f"seewhy-{server[1] if server else 0}"
