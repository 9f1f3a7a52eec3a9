"""Routes, uploads, templates, errors and paging for all pages."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence, Sized
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import fastapi
from fastapi import FastAPI, Query
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup
from pydantic import BeforeValidator
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match

from ...errors import InputError, SeeWhyError
from ...language.annotation.records import DECISIONS, OPEN
from ...report.page import environment
from ...storage.reading import parse_json
from ..outputs import ErrorOutput
from .guard import Guard, Refuse
from .settings import Settings
from .worker import BusyError

T = TypeVar("T")
Documented = dict[int | str, dict[str, Any]]
"""Responses of a route, as in the OpenAPI document."""
Format = Annotated[Literal["html", "json"], Query(description="A page, or its data as JSON.")]
PageNumber = Annotated[int, Query(ge=1, le=10**6, description="From 1; a number past the end gives the last page.")]
Index = Annotated[int, InPath(ge=0, le=2**31, description="The picture's index, from 0.")]
RETRY_AFTER = "2"
"""Seconds to wait if too many requests are queued."""
DROPS = "app.js"
"""Name of the script that accepts dropped pictures."""
FIELD = "picture"
MOST_FORM_BYTES = 200_000
MOST_FORM_FIELDS = 400
MOST_JSON_BYTES = 4_000_000
"""Maximum bytes of a body in JSON; the list of half a million pictures takes as many."""
LONGEST_NAME = 120


JPEG, CSV, JSON_LINES, SCRIPT = "image/jpeg", "text/csv", "application/jsonl", "text/javascript"
_HTML: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
REFUSALS = {
    403: "The request came from another site.",
    404: "There is no such page, picture or model, or the picture is no longer in memory.",
    408: "The body arrived too slowly.",
    413: "The body is too large.",
    421: "The server does not answer under this host name.",
    422: "The input is not valid; the message says why.",
    503: "Too many requests are waiting, or the server is stopping; `retry-after` says when to try again.",
    504: "The answer took too long.",
}
"""What a status means, for pages and the service."""
ERRORS: Documented = {
    status: {"model": ErrorOutput, "description": text, "content": _HTML}
    for status, text in {
        303: "Done, or a name is missing; `location` is the page to go to.",
        409: "Somebody else saved first. Nothing was changed; the answer has the current state.",
        **REFUSALS,
    }.items()
}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_PAGE: Documented = {200: {"description": "A page; with `format=json`, its data.", "content": {**_HTML, **_OBJECT}}}


def add_page(app: FastAPI, path: str, handler: Callable[..., Any], **how: Any) -> None:
    """Add a route that answers with a page, or with its data as JSON."""
    app.add_api_route(path, handler, responses=_PAGE, response_class=HTMLResponse, response_model=None, **how)


def add_data(app: FastAPI, path: str, handler: Callable[..., Any], **how: Any) -> None:
    """Add a route that answers with JSON only."""
    documented: Documented = {200: {"content": _OBJECT}}
    how = {"responses": documented, "response_class": JSONResponse, **how}
    app.add_api_route(path, handler, response_model=None, **how)


def add_file(app: FastAPI, path: str, handler: Callable[..., Any], kind: str, **how: Any) -> None:
    """Add a route that answers with a file of this type."""
    schema = {"type": "string", "format": "binary"} if kind == JPEG else {"type": "string"}
    responses: Documented = {200: {"content": {kind: {"schema": schema}}}}
    app.add_api_route(path, handler, responses=responses, response_class=Response, response_model=None, **how)


@cache
def templates() -> Environment:
    """Return the template environment of the app and the cards."""
    packages = ("seewhy.service.app", "seewhy.report")
    own = environment().overlay(loader=ChoiceLoader([PackageLoader(package, "templates") for package in packages]))
    own.globals = {**environment().globals, "script": None, "verbs": DECISIONS, "undecided": OPEN}
    own.globals["app_style"] = Markup(own.loader.get_source(own, "app.css")[0])  # type: ignore[union-attr]
    return own


@cache
def source(name: str) -> str:
    """Return the text of a style sheet or script."""
    return templates().loader.get_source(templates(), name)[0]  # type: ignore[union-attr]


def render(template: str, **context: Any) -> str:
    return templates().get_template(template).render(**context)


def interface(app: FastAPI) -> HTMLResponse:
    """Return a page of every address, made of the OpenAPI document."""
    document = app.openapi()
    about = {"title": document["info"]["title"], "paths": document["paths"]}
    return HTMLResponse(render("api.html", **about, schemas=document.get("components", {}).get("schemas", {})))


def answer(format: str, data: Callable[[], Any], page: Callable[[], str], status: int = 200) -> Response:
    """Return the page or its JSON; only the requested form is computed."""
    return JSONResponse(data(), status) if format == "json" else HTMLResponse(page(), status)


def paged(items: Sequence[T], page: int, size: int) -> tuple[int, int, Sequence[T]]:
    """Return the number of the page, the number of pages, and the items of the page."""
    pages = max(1, math.ceil(len(items) / size))
    page = min(max(page, 1), pages)
    return page, pages, items[(page - 1) * size : page * size]


def refuse(request: Request, status: int, text: str) -> Response:
    """Return an error as a page, or as JSON if the route answers with JSON only or the request asks for it."""
    format = request.query_params.get("format", "json" if _is_data(request) else "html")
    # After a picture that cannot be read, a reader may drop another on the error page.
    drops = "app" in request.scope and DROPS in request.app.state.scripts
    page = {"status": status, "text": text, "drops": drops}
    return answer(format, lambda: {"error": text}, lambda: render("error.html", **page), status)


def _is_data(request: Request) -> bool:
    """Return whether the route of a request answers with JSON only; the guard refuses before the route is known."""
    scope, routes = request.scope, request.app.routes if "app" in request.scope else []
    route = scope.get("route") or next((r for r in routes if r.matches(scope)[0] != Match.NONE), None)
    return getattr(route, "response_class", None) is JSONResponse


def answer_errors(app: FastAPI, refuse: Refuse, statuses: Mapping[type[SeeWhyError], int] | None = None) -> None:
    """Answer HTTP errors, validation errors and SeeWhy's errors by ``refuse``."""
    known: dict[type[SeeWhyError], int] = {BusyError: 503, **(statuses or {})}

    def http(request: Request, error: Any) -> Response:
        response = refuse(request, error.status_code, error.detail)
        response.headers.update(error.headers or {})
        return response

    def invalid(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        return refuse(request, 422, f"{first['loc'][-1]}: {first['msg']}.")

    def ours(request: Request, error: Exception) -> Response:
        status = next((status for kind, status in known.items() if isinstance(error, kind)), 422)
        response = refuse(request, status, str(error))
        response.headers.update({"retry-after": RETRY_AFTER} if status == 503 else {})
        return response

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(SeeWhyError, ours)


def at_most(n: int) -> BeforeValidator:
    """Return a validator that refuses more than ``n`` entries before it checks each one."""

    def check(entries: Any) -> Any:
        if isinstance(entries, Sized) and len(entries) > n:
            raise ValueError(f"it may have at most {n} entries, got {len(entries)}")
        return entries

    return BeforeValidator(check)


class _Request(Request):
    """A request whose JSON has a limited size, and only numbers that JSON allows."""

    async def json(self) -> Any:
        body = await self.body()
        if len(body) > MOST_JSON_BYTES:
            raise fastapi.HTTPException(
                413, f"The JSON is larger than the limit of {MOST_JSON_BYTES:,} bytes. Send several requests."
            )
        try:
            return await asyncio.to_thread(parse_json, body)  # others are answered meanwhile
        except ValueError as error:
            raise fastapi.HTTPException(
                422, f"The JSON cannot be read: {error}. Correct it and send it again."
            ) from error


class _Route(APIRoute):
    """A route that reads JSON as :class:`_Request` does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def limited(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return limited


def make_base(title: str, settings: Settings, scripts: tuple[str, ...], **options: Any) -> FastAPI:
    app = FastAPI(title=title, docs_url=None, redoc_url=None, responses=ERRORS, **options)
    app.router.route_class = _Route
    app.add_middleware(Guard, settings=settings, refuse=refuse)
    answer_errors(app, refuse)
    app.state.scripts = scripts
    app.add_api_route("/docs", lambda: interface(app), response_class=HTMLResponse, include_in_schema=False)
    for name in scripts:
        app.add_api_route(f"/{name}", partial(_script, name), response_model=None, include_in_schema=False)
    return app


def _script(name: str) -> Response:
    return Response(source(name), media_type=SCRIPT)


def form_with(fields: dict[str, Any], kind: str = "multipart/form-data") -> dict[str, Any]:
    """Return the OpenAPI description of a form with the given fields, all required."""
    form = {"type": "object", "required": [*fields], "properties": fields}
    return {"requestBody": {"required": True, "content": {kind: {"schema": form}}}}


UPLOAD_BODY = form_with({FIELD: {"type": "string", "format": "binary", "description": "One picture file."}})


async def read_uploads(request: Request, most: int, n_most: int) -> list[tuple[bytes, str]]:
    """Return the pictures of an uploaded form with their names; an empty file has no bytes."""
    files = "one file" if n_most == 1 else f"1 to {n_most} files"
    expected = f"Send a form of the type multipart/form-data with {files} in the field {FIELD!r}."
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InputError(f"The request is not a form with a file. {expected} With curl: -F {FIELD}=@photo.jpg")
    parser = MultiPartParser(request.headers, request.stream(), max_files=n_most, max_fields=8, max_part_size=10_000)
    parser.spool_max_size = most + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "It is damaged"
        raise InputError(f"The form cannot be read: {reason.rstrip('.')}. {expected}") from error
    sent = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
    found = [(await file.read(), shown_name(file.filename or "")) for file in sent]
    await form.close()
    if not any(data for data, _ in found):
        raise InputError(f"The form has no picture. {expected}")
    return found


def shown_name(name: str) -> str:
    """Return the last part of a client's file name, cleaned for display."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    clean = "".join(sign for sign in last if sign.isprintable()).strip()
    return clean[:LONGEST_NAME] or "picture"


async def read_form(request: Request) -> list[tuple[str, str]]:
    """Return the fields of a text form, in order."""
    body = await request.body()
    if len(body) > MOST_FORM_BYTES:
        raise InputError(
            f"The form is larger than the limit of {MOST_FORM_BYTES:,} bytes. Send fewer or shorter texts."
        )
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FORM_FIELDS, errors="strict")
    except ValueError as error:
        raise InputError(
            f"The form cannot be read. It must have at most {MOST_FORM_FIELDS} fields in UTF-8, encoded as a web form."
        ) from error
