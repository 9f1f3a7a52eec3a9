"""The routes of the service, whose docstrings appear in the OpenAPI document, and its server."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Query, Security
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from ...classifiers.base import Classifier
from ...classifiers.saving import load as load_saved
from ...encoders.stream import Encoded
from ...errors import InputError, UnknownNameError
from ...evidence.explain import ExplainOptions
from ...explanation.base import Explanation
from ...types import Failure
from ..app.base import FIELD, REFUSALS, add_data, answer_errors, form_with, interface, read_uploads, render
from ..app.guard import Guard
from ..app.serving import address, limited, listen
from ..app.worker import decoder_with
from ..outputs import ErrorOutput
from .entrance import VISIT, WELCOME, AccessLog, Door, Entrance, Metrics, refuse, wants_page
from .kserve import PARTS, router
from .service import ClientGone, Model, Models, Service, state, unless_gone
from .settings import GONE, ServiceSettings

EVIDENCE = {
    "where": ("where",),
    "like": ("like", "like_measured", "like_missing"),
    "words": ("words", "words_measured", "words_missing"),
}
"""Keys of an explanation for each kind of evidence."""
ALWAYS = ("agreement", "agreement_parts", "agreement_about", "subject", "in_view")
MOST_TOP = 1000

Named = Annotated[
    str | None, Query(alias="model", max_length=100, description="A model's name. Default: the first model.")
]
Evidence = Annotated[
    str | None, Query(max_length=50, description="Kinds of evidence, separated by commas: where, like, words.")
]
Label = Annotated[str | None, Query(max_length=500, description="One of the classes. Default: the predicted one.")]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorOutput, "description": text}
    for status, text in {
        401: "The token is missing or wrong.",
        429: "Too many requests from this address; `retry-after` says when to try again.",
        **REFUSALS,
    }.items()
}
PICTURES: dict[str, Any] = {"type": "array", "items": {"type": "string", "format": "binary"}}
PICTURES_BODY = form_with(
    {FIELD: {**PICTURES, "description": "Picture files, one part each; addresses are not fetched."}}
)
CARD = {
    "description": "JSON; with `format`, the card of one picture.",
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/html": {"schema": {"type": "string"}},
        "image/png": {"schema": {"type": "string", "format": "binary"}},
    },
}


class Answers:
    def __init__(self, service: Service) -> None:
        self.service = service

    def mount(self, app: FastAPI) -> None:
        add_data(app, "/healthz", self.health)
        add_data(app, "/readyz", self.ready)
        add_data(app, "/v2/health/ready", self.ready)
        add_data(app, "/version", self.version)
        text = {200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}}
        add_data(app, "/metrics", self.metrics, responses=text, response_class=Response)
        for path in WELCOME:
            app.add_api_route(path, self.welcome, include_in_schema=False)
        card = {"responses": {200: CARD}, "openapi_extra": PICTURES_BODY}
        add_data(app, "/predict", self.predict, methods=["POST"], **card)

    async def welcome(self, request: Request) -> Response:
        """A description of the service for browsers; other clients get an error."""
        if not wants_page(request):
            raise HTTPException(404)
        if request.scope["path"] != "/":
            return interface(request.app)
        token = self.service.settings.token
        shown = self.service.models.all() if token is None else []
        models = [{**m.classifier.provenance(), "name": m.name, "classes": m.classifier.classes} for m in shown]
        paths = dict(sorted(request.app.openapi()["paths"].items(), key=lambda path: path[0] != "/predict"))
        page = {"models": models, "token": token is not None, "paths": paths}
        return HTMLResponse(render("serve.html", **page, address=str(request.base_url), version=version("seewhy")))

    async def health(self) -> Response:
        """Whether the process works; restart it on 503."""
        return state("alive", self.service.is_alive)

    async def ready(self) -> Response:
        """Whether new requests are accepted; 503 while the service stops."""
        return state("ready", self.service.is_ready)

    async def metrics(self) -> Response:
        """Metrics for Prometheus."""
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self.service.counts(), headers={"content-type": kind})

    async def version(self) -> Response:
        """SeeWhy's version, the models with their digests, and the limits."""
        models = self.service.models
        listed = [
            {
                "name": model.name,
                "digest": model.digest,
                "n_classes": len(model.classifier.classes),
                "problem": models.problems.get(model.name),
                "facts": model.classifier.provenance(),
            }
            for model in models.all()
        ]
        return JSONResponse({"seewhy": version("seewhy"), "models": listed, "limits": self.service.settings.limits()})

    async def predict(
        self,
        request: Request,
        model: Named = None,
        explain: Evidence = None,
        format: Annotated[
            Literal["json", "html", "png"], Query(description="html or png gives the card of one picture.")
        ] = "json",
        top: Annotated[int, Query(ge=1, le=MOST_TOP, description="How many classes to list.")] = 5,
        target: Label = None,
        contrast: Label = None,
        measure: Annotated[
            bool, Query(description="Measure the heat map by deletion and insertion: some hundred passes per picture.")
        ] = False,
    ) -> Response:
        """Classify pictures, and optionally explain them. An unreadable picture does not stop the others."""
        settings = self.service.settings
        wanted = _evidence(explain)
        if (target or contrast or measure) and not wanted and format == "json":
            raise InputError("`target`, `contrast` and `measure` require explain=where. Add it.")
        options = ExplainOptions(
            target=target or None, contrast=contrast or None, measure=measure and settings.web.measure, top=top
        )
        with self.service.models.use(model) as used:
            pictures = await read_uploads(request, settings.web.max_upload, settings.n_pictures)
            visit = request.scope[VISIT]
            visit.model, visit.pictures = used.name, len(pictures)
            if format != "json" and len(pictures) != 1:
                raise InputError(
                    f"format={format} requires one picture, got {len(pictures)}. Send one, or leave out format."
                )
            needed = bool(wanted) or format != "json"
            results = await unless_gone(request, self._results(used, pictures, top, options if needed else None))
            visit.failed = sum(isinstance(one, Failure) for one in results)
            return await self.service.aside(lambda: _answer(used, results, format, wanted))

    async def _results(
        self, model: Model, pictures: list[tuple[bytes, str]], top: int, options: ExplainOptions | None
    ) -> list[Any]:
        looks = await self.service.look(model, pictures)
        good = [look for look in looks if isinstance(look, Encoded)]
        made: list[Any] = []
        if good and options is not None:
            made = await self.service.explain(model, good, options)
        elif good:
            made = await self.service.decide(model, good, top)
        rest = iter(made)
        return [look if isinstance(look, Failure) else next(rest) for look in looks]


def _evidence(explain: str | None) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(part.strip() for part in (explain or "").split(",") if part.strip()))
    if unknown := [name for name in wanted if name not in EVIDENCE]:
        raise InputError(f"`explain` must be {', '.join(EVIDENCE)}, separated by commas, got {unknown[0]!r}.")
    return wanted


def _answer(model: Model, results: list[Any], format: str, wanted: tuple[str, ...]) -> Response:
    failed = [one for one in results if isinstance(one, Failure)]
    broken = {"error": f"{failed[0].image}: {failed[0].error}"} if len(failed) == len(results) else {}
    if format != "json" and not broken:
        (one,) = results
        return Response(one.to_png(), media_type="image/png") if format == "png" else HTMLResponse(one.to_html())
    rows = [_explained(one, wanted) if isinstance(one, Explanation) else one.to_json() for one in results]
    about = {"model": {"name": model.name, "digest": model.digest}, "pictures": rows}
    return JSONResponse({**broken, **about}, 422 if broken else 200)


def _explained(one: Explanation, wanted: tuple[str, ...]) -> dict[str, Any]:
    whole = one.to_json()
    kept = [key for name in wanted for key in EVIDENCE[name]]
    evidence = {key: whole[key] for key in (*kept, *ALWAYS) if key in whole}
    return {**one.prediction.to_json(), "explanation": evidence}


def gone(request: Request, _error: Exception) -> Response:
    """Return a response for the access log, because the client has disconnected."""
    return Response(status_code=GONE)


def make(
    models: Mapping[str, Classifier | Path],
    settings: ServiceSettings,
    load: Callable[[Path], Classifier] | None,
    log_to: int | None,
) -> FastAPI:
    """Make the service; see :func:`seewhy.service.serve.make_service`."""
    metrics = Metrics()
    loaded = Models(models, settings.web, load or load_saved, metrics)
    service = Service(settings, loaded, metrics, AccessLog(log_to, metrics.lines_dropped.inc))

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        service.reloader.start()
        yield
        service.close()

    options: dict[str, Any] = {"docs_url": None, "redoc_url": None, "responses": ERRORS, "lifespan": life}
    if settings.token is not None:
        options["dependencies"] = [Security(HTTPBearer(auto_error=False))]  # for the document only; Door checks it
    app = FastAPI(title="SeeWhy", version=version("seewhy"), **options)
    app.add_middleware(Door, service=service)
    app.add_middleware(Guard, settings=settings.web, refuse=refuse)
    app.add_middleware(Entrance, service=service)
    answer_errors(app, refuse, {UnknownNameError: 404})
    app.add_exception_handler(ClientGone, gone)
    Answers(service).mount(app)
    app.include_router(router)
    app.openapi()["components"]["schemas"] |= PARTS
    app.state.service = service
    return app


class DrainingServer(uvicorn.Server):
    """A Uvicorn server that, on a signal, refuses new requests and stops when running ones are answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.until = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop accepting requests on the first signal, and exit at once on the second."""
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
    """Serve until SIGTERM or Ctrl-C; then answer running requests and refuse new requests."""
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
