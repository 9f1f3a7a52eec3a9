"""What every page of every app stands on: guard, templates, errors, one JSON twin a page."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from ...report.page import environment
from .guard import Guard
from .refusals import answer_errors
from .settings import Settings

Format = Annotated[Literal["html", "json"], Query(description="A page, or its JSON twin.")]


class Problem(BaseModel):
    """Every error's JSON."""

    error: str


def said(status: int, text: str) -> dict[int | str, dict[str, Any]]:
    """An entry of a route's documented answers."""
    page: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
    return {status: {"model": Problem, "description": text, "content": page}}


ERRORS: dict[int | str, dict[str, Any]] = {
    **said(403, "A request that changes something came from another page."),
    **said(413, "The body is larger than allowed."),
    **said(421, "The page does not answer under this host name."),
    **said(422, "What was given cannot be used; the message says why."),
    **said(503, "Too many requests are waiting."),
    **said(504, "It took too long."),
}
DROPS = "app.js"
"""The script that takes pictures dropped on a page."""

NOT_THERE = said(404, "There is no such page, or it is no longer kept.")
PAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page; with `format=json`, its data.",
        "content": {"text/html": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}},
    }
}


class Jpeg(Response):
    """A picture."""

    media_type = "image/jpeg"


JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    **NOT_THERE,
}
JSON_ONLY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}


def page_route() -> dict[str, Any]:
    """Options of a route that answers with a page, or with its JSON twin."""
    return {"response_class": HTMLResponse, "response_model": None}


def data_route() -> dict[str, Any]:
    """Options of a route that answers with JSON alone."""
    return {"response_class": JSONResponse, "response_model": None}


@cache
def templates() -> Environment:
    """The card's own templates and style, with the app's beside them."""
    loaders = [PackageLoader("seewhy.service.app", "templates"), PackageLoader("seewhy.report", "templates")]
    found = environment().overlay(loader=ChoiceLoader(loaders))
    found.globals = {**environment().globals, "app_style": Markup(source("app.css")), "script": None}
    return found


@cache
def source(name: str) -> str:
    """A file of ours as it stands: style sheet or script."""
    loader = ChoiceLoader(
        [PackageLoader("seewhy.service.app", "templates"), PackageLoader("seewhy.report", "templates")]
    )
    return loader.get_source(Environment(autoescape=True), name)[0]


def render(template: str, **context: Any) -> str:
    """Fill a template; everything in the context is escaped."""
    return templates().get_template(template).render(**context)


def answer(format: str, data: Callable[[], Any], page: Callable[[], str], status: int = 200) -> Response:
    """The page or its JSON twin; only what is asked for is made."""
    return JSONResponse(data(), status) if format == "json" else HTMLResponse(page(), status)


def refuse(request: Request, status: int, text: str) -> Response:
    """An error, as the page or the JSON that was asked for."""
    format = request.query_params.get("format", "html")
    # A picture that could not be read is followed by another, dropped on the page that says so.
    drops = "app" in request.scope and DROPS in request.app.state.scripts
    page = {"status": status, "text": text, "drops": drops}
    return answer(format, lambda: {"error": text}, lambda: render("error.html", **page), status)


def make_base(title: str, settings: Settings, scripts: tuple[str, ...], **options: Any) -> FastAPI:
    """An app without pages yet.

    Args:
        title: of the OpenAPI document at ``/openapi.json``.
        settings: limits.
        scripts: files in a ``templates/`` folder, each served under its own name.
        **options: of FastAPI.
    """
    app = FastAPI(title=title, docs_url=None, redoc_url=None, responses=ERRORS, **options)
    app.add_middleware(Guard, settings=settings, refuse=refuse)
    answer_errors(app, refuse)
    app.state.scripts = scripts
    for name in scripts:
        app.add_api_route(f"/{name}", _script(name), response_class=_Script, include_in_schema=False)
    return app


class _Script(Response):
    media_type = "text/javascript"


def _script(name: str) -> Callable[[], Response]:
    def script() -> Response:
        return _Script(source(name))

    return script
