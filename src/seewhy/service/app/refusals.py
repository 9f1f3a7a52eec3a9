"""What an app answers where something cannot be answered: every error in the app's own form."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ...errors import SeeWhyError
from .guard import Refuse
from .worker import BusyError

RETRY_AFTER = "2"
"""Seconds, where too much is waiting."""


def answer_errors(app: FastAPI, refuse: Refuse, statuses: dict[type[SeeWhyError], int] | None = None) -> None:
    """Answer errors of HTTP, of what was sent and of ours."""

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = refuse(request, error.status_code, error.detail)
        response.headers.update(error.headers or {})
        return response

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return refuse(request, 422, f"{first['loc'][-1]}: {first['msg']}.")

    def busy(request: Request, error: Exception) -> Response:
        response = refuse(request, 503, str(error))
        response.headers["retry-after"] = RETRY_AFTER
        return response

    def ours(request: Request, error: Exception) -> Response:
        status = next((status for kind, status in (statuses or {}).items() if isinstance(error, kind)), 422)
        return refuse(request, status, str(error))

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(BusyError, busy)
    app.add_exception_handler(SeeWhyError, ours)
