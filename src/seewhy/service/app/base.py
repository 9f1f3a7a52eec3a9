"""What every page of every app stands on: routes, templates, errors, one JSON twin a page, long lists by pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from ...errors import SeeWhyError
from ...report.page import environment
from .guard import Guard, Refuse
from .settings import Settings
from .worker import BusyError

T = TypeVar("T")
Documented = dict[int | str, dict[str, Any]]
"""Answers of a route, as its OpenAPI document has them."""
Format = Annotated[Literal["html", "json"], Query(description="A page, or its JSON twin.")]
PageNumber = Annotated[int, Query(ge=1, le=10**6, description="From 1; one that is not there is the last.")]
RETRY_AFTER = "2"
"""Seconds, where too much is waiting."""
DROPS = "app.js"
"""The script that takes pictures dropped on a page."""


class Problem(BaseModel):
    """Every error's JSON."""

    error: str


class Jpeg(Response):
    """A picture."""

    media_type = "image/jpeg"


class Csv(Response):
    """A table."""

    media_type = "text/csv"


class Lines(Response):
    """A JSON object a line."""

    media_type = "application/jsonl"


class Script(Response):
    """A script of ours."""

    media_type = "text/javascript"


def answers(status: int, text: str) -> Documented:
    """An entry of a route's documented answers."""
    page: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
    return {status: {"model": Problem, "description": text, "content": page}}


ERRORS: Documented = {
    **answers(403, "A request that changes something came from another page."),
    **answers(413, "The body is larger than allowed."),
    **answers(421, "The page does not answer under this host name."),
    **answers(422, "What was given cannot be used; the message says why."),
    **answers(503, "Too many requests are waiting."),
    **answers(504, "It took too long."),
}
NOT_THERE = answers(404, "There is no such page, or it is no longer kept.")
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_PAGE: Documented = {
    200: {
        "description": "A page; with `format=json`, its data.",
        "content": {"text/html": {"schema": {"type": "string"}}, **_OBJECT},
    }
}


def add_page(app: FastAPI, path: str, handler: Callable[..., Any], also: Documented | None = None, **how: Any) -> None:
    """A route that answers with a page, or with its JSON twin."""
    responses = {**_PAGE, **(also or {})}
    app.add_api_route(path, handler, responses=responses, response_class=HTMLResponse, response_model=None, **how)


def add_data(app: FastAPI, path: str, handler: Callable[..., Any], also: Documented | None = None, **how: Any) -> None:
    """A route that answers with JSON alone."""
    responses = {200: {"content": _OBJECT}, **(also or {})}
    app.add_api_route(path, handler, responses=responses, response_class=JSONResponse, response_model=None, **how)


def add_file(app: FastAPI, path: str, handler: Callable[..., Any], kind: type[Response], also: Documented) -> None:
    """A route that answers with a file."""
    schema = {"type": "string", "format": "binary"} if kind is Jpeg else {"type": "string"}
    responses: Documented = {200: {"content": {str(kind.media_type): {"schema": schema}}}, **also}
    app.add_api_route(path, handler, responses=responses, response_class=kind, response_model=None)


@cache
def templates() -> Environment:
    """The card's own templates and style, with the app's beside them."""
    own = environment().overlay(loader=_loader())
    own.globals = {**environment().globals, "app_style": Markup(source("app.css")), "script": None}
    return own


def _loader() -> ChoiceLoader:
    packages = ("seewhy.service.app", "seewhy.report")
    return ChoiceLoader([PackageLoader(package, "templates") for package in packages])


@cache
def source(name: str) -> str:
    """A file of ours as it stands: style sheet or script."""
    return _loader().get_source(Environment(autoescape=True), name)[0]


def render(template: str, **context: Any) -> str:
    """Fill a template; everything in the context is escaped."""
    return templates().get_template(template).render(**context)


def answer(format: str, data: Callable[[], Any], page: Callable[[], str], status: int = 200) -> Response:
    """The page or its JSON twin; only what is asked for is made."""
    return JSONResponse(data(), status) if format == "json" else HTMLResponse(page(), status)


def paged(items: Sequence[T], page: int, size: int) -> tuple[int, int, Sequence[T]]:
    """The page's number, how many there are, and what is on it.

    >>> paged("abcde", 9, 2)
    (3, 3, 'e')
    """
    pages = max(1, math.ceil(len(items) / size))
    page = min(max(page, 1), pages)
    return page, pages, items[(page - 1) * size : page * size]


def refuse(request: Request, status: int, text: str) -> Response:
    """An error, as the page or the JSON that was asked for."""
    format = request.query_params.get("format", "html")
    # A picture that could not be read is followed by another, dropped on the page that says so.
    drops = "app" in request.scope and DROPS in request.app.state.scripts
    page = {"status": status, "text": text, "drops": drops}
    return answer(format, lambda: {"error": text}, lambda: render("error.html", **page), status)


def answer_errors(app: FastAPI, refuse: Refuse, statuses: Mapping[type[SeeWhyError], int] | None = None) -> None:
    """Answer errors of HTTP, of what was sent and of ours in the app's own form."""

    def http(request: Request, error: Any) -> Response:
        response = refuse(request, error.status_code, error.detail)
        response.headers.update(error.headers or {})
        return response

    def invalid(request: Request, error: Any) -> Response:
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


def make_base(title: str, settings: Settings, scripts: tuple[str, ...], **options: Any) -> FastAPI:
    """An app without pages yet."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None, responses=ERRORS, **options)
    app.add_middleware(Guard, settings=settings, refuse=refuse)
    answer_errors(app, refuse)
    app.state.scripts = scripts
    for name in scripts:
        app.add_api_route(f"/{name}", _script(name), response_class=Script, include_in_schema=False)
    return app


def _script(name: str) -> Callable[[], Response]:
    def script() -> Response:
        return Script(source(name))

    return script
