"""What the service's addresses answer, its own and KServe's; the docstrings are the words of the OpenAPI document."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeVar

import torch
from fastapi import FastAPI, Query
from fastapi import Path as InPath
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from torch import Tensor

from ...encoders.stream import Encoded
from ...errors import InputError
from ...evidence.explain import ExplainOptions
from ...explanation.base import Explanation
from ...storage.reading import parse_json
from ...types import Failure
from ..app.base import Problem, add_data, form_with, read_uploads
from .entrance import VISIT
from .service import Model, Service
from .settings import GONE

T = TypeVar("T")
EVIDENCE = {
    "where": ("where",),
    "like": ("like", "like_measured", "like_missing"),
    "words": ("words", "words_measured", "words_missing"),
}
"""What may be asked for → the keys of an explanation that hold it."""
ALWAYS = ("agreement", "agreement_parts", "agreement_about", "subject")
MOST_TOP = 1000
MOST_AXES = 4
MOST_OBJECTS = 1000
"""Of a request's JSON, counted before it is read."""

Named = Annotated[str | None, Query(alias="model", max_length=100, description="Left out, the first model.")]
Evidence = Annotated[
    str | None, Query(max_length=50, description="Evidence wanted, parted by commas: where, like, words.")
]
Label = Annotated[str | None, Query(max_length=500, description="One of the classes; left out, the decision's.")]
Name = Annotated[str, InPath(min_length=1, max_length=100, description="As it is served.")]


def error(text: str) -> dict[str, Any]:
    return {"model": Problem, "description": text}


ERRORS: dict[int | str, dict[str, Any]] = {
    401: error("No token, or a wrong one."),
    403: error("The request came from a page of somebody else's."),
    404: error("There is no such model."),
    408: error("The body came too slowly."),
    413: error("The body is larger than allowed."),
    421: error("The service does not answer under this host name."),
    422: error("What was sent cannot be used; the message says why."),
    429: error("Too many requests from this address; `retry-after` says when to come again."),
    503: error("Too much is waiting, or the service is being stopped; `retry-after` says when to come again."),
    504: error("It took too long."),
}
PICTURES_BODY = form_with(
    {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "Picture files, a part each; never addresses.",
    }
)
CARD = {
    "description": "JSON; with `format`, the card of one picture.",
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/html": {"schema": {"type": "string"}},
        "image/png": {"schema": {"type": "string", "format": "binary"}},
    },
}


def _printable(text: str) -> str:
    if not text.isprintable():  # half a character is not
        raise ValueError("it is not printable")
    return text


class PictureTensor(BaseModel):
    name: Literal["picture"]
    datatype: Literal["BYTES"]
    shape: list[Annotated[int, Field(strict=True, ge=1)]] = Field(max_length=MOST_AXES)
    data: list[Any]


class OutputName(BaseModel):
    name: str


class InferRequest(BaseModel):
    """As KServe's v2 protocol has it."""

    id: Annotated[str, Field(max_length=200, strict=True), AfterValidator(_printable)] | None = None
    inputs: list[PictureTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputName] | None = None


def _inlined(node: Any, parts: dict[str, Any]) -> Any:
    """A schema with what it refers to in its place, as a document of OpenAPI can hold it."""
    if isinstance(node, list):
        return [_inlined(one, parts) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(parts[node["$ref"].rpartition("/")[2]], parts)
    return {key: _inlined(value, parts) for key, value in node.items() if key != "$defs"}


SCHEMA = InferRequest.model_json_schema()
INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _inlined(SCHEMA, SCHEMA["$defs"])}},
    }
}


class ClientGone(Exception):
    """The client left before its answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is dropped once the client has left, so that nothing is computed for nobody."""

    async def left() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.1)

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


class Answers:
    def __init__(self, service: Service) -> None:
        self.service = service

    def mount(self, app: FastAPI) -> None:
        add_data(app, "/healthz", self.health)
        add_data(app, "/readyz", self.ready)
        add_data(app, "/version", self.version)
        text = {200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}}
        add_data(app, "/metrics", self.metrics, responses=text, response_class=Response)
        post: dict[str, Any] = {"methods": ["POST"]}
        add_data(app, "/predict", self.predict, responses={200: CARD}, openapi_extra=PICTURES_BODY, **post)
        add_data(app, "/v2", self.server)
        add_data(app, "/v2/health/live", self.live)
        add_data(app, "/v2/health/ready", self.all_ready)
        add_data(app, "/v2/models/{name}", self.model)
        add_data(app, "/v2/models/{name}/ready", self.model_ready)
        add_data(app, "/v2/models/{name}/infer", self.infer, openapi_extra=INFER_BODY, **post)

    async def health(self) -> Response:
        """Whether the process works; 503 asks for it to be started again."""
        return _state("alive", self.service.is_alive)

    async def ready(self) -> Response:
        """Whether new requests are taken; 503 while it is being stopped."""
        return _state("ready", self.service.is_ready)

    async def live(self) -> Response:
        """As `/healthz`."""
        return _state("live", self.service.is_alive)

    async def all_ready(self) -> Response:
        """As `/readyz`."""
        return _state("ready", self.service.is_ready)

    async def metrics(self) -> Response:
        """Counts for Prometheus."""
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
            Literal["json", "html", "png"], Query(description="html and png: the card of one picture.")
        ] = "json",
        top: Annotated[int, Query(ge=1, le=MOST_TOP, description="Classes listed.")] = 5,
        target: Label = None,
        contrast: Label = None,
        measure: Annotated[
            bool, Query(description="Measure the map by deletion and insertion, some hundred passes a picture.")
        ] = False,
    ) -> Response:
        """Decide on pictures, and explain where that is asked for; a broken one never stops the others."""
        settings = self.service.settings
        wanted = _evidence(explain)
        if (target or contrast or measure) and not wanted and format == "json":
            raise InputError("target, contrast and measure are about evidence, and none was wanted. Add explain=where.")
        options = ExplainOptions(
            target=target or None, contrast=contrast or None, measure=measure and settings.web.measure, top=top
        )
        with self.service.models.use(model) as used:
            pictures = await read_uploads(request, settings.web.max_upload, settings.n_pictures)
            visit = request.scope[VISIT]
            visit.model, visit.pictures = used.name, len(pictures)
            if format != "json" and len(pictures) != 1:
                raise InputError(f"{len(pictures)} pictures came, and a card is of one. Send one, or ask for JSON.")
            needed = bool(wanted) or format != "json"
            results = await unless_gone(request, self._results(used, pictures, top, options if needed else None))
            visit.failed = sum(isinstance(one, Failure) for one in results)
            return await self.service.aside(lambda: _answer(used, results, format, wanted))

    async def _results(
        self, model: Model, pictures: list[tuple[bytes, str]], top: int, options: ExplainOptions | None
    ) -> list[Any]:
        """A failure, a prediction or an explanation of each, in order."""
        looks = await self.service.look(model, pictures)
        good = [look for look in looks if isinstance(look, Encoded)]
        made: list[Any] = []
        if good and options is not None:
            made = await self.service.explain(model, good, options)
        elif good:
            probabilities = await self.service.probabilities(model, torch.cat([look.pooled for look in good]))
            judge = model.classifier.prediction

            def decide() -> list[Any]:
                return [judge(s.name, p, top, s.pooled[0]) for s, p in zip(good, probabilities, strict=True)]

            made = await self.service.aside(decide)
        rest = iter(made)
        return [look if isinstance(look, Failure) else next(rest) for look in looks]

    async def server(self) -> Response:
        """What serves."""
        return JSONResponse({"name": "seewhy", "version": version("seewhy"), "extensions": []})

    async def model(self, name: Name) -> Response:
        """A model's input, outputs and classes; its version is the start of its digest."""
        with self.service.models.use(name) as used:
            n = len(used.classifier.classes)
            about = {
                "name": used.name,
                "versions": [used.digest[:12]],
                "platform": "seewhy",
                "inputs": [{"name": "picture", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": k, "datatype": t, "shape": [-1, *s]} for k, (t, s) in _outputs(n).items()],
                "parameters": {"classes": list(used.classifier.classes)},
            }
        return JSONResponse(about)

    async def model_ready(self, name: Name) -> Response:
        """Whether a model takes requests."""
        with self.service.models.use(name) as used:
            ready = used.worker.is_alive and not self.service.draining
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request, name: Name) -> Response:
        """Decide on `picture` (BYTES: files in base64)."""
        if "inference-header-content-length" in request.headers:
            raise InputError("Tensors came in binary. JSON alone was expected. Send data as JSON.")
        with self.service.models.use(name) as used:
            body = await request.body()
            most = self.service.settings.n_pictures
            files, wanted, id = await self.service.aside(lambda: _read(body, used.name, most))
            visit = request.scope[VISIT]
            visit.model, visit.pictures = used.name, len(files)
            probabilities, errors = await unless_gone(request, self._rows(used, files))
            visit.failed = sum(map(bool, errors))
            return await self.service.aside(lambda: _inferred(used, wanted, id, probabilities, errors))

    async def _rows(self, model: Model, files: list[tuple[bytes, str]]) -> tuple[Tensor, list[str]]:
        """A row of probabilities per picture, and why there is none: then the row is 0."""
        looks = await self.service.look(model, files)
        errors = [look.error if isinstance(look, Failure) else "" for look in looks]
        if all(errors):
            raise InputError(f"No picture could be read. The first one {errors[0]}.")
        good = [look.pooled for look in looks if isinstance(look, Encoded)]
        rows = torch.zeros(len(looks), len(model.classifier.classes))
        rows[[not said for said in errors]] = await self.service.probabilities(model, torch.cat(good))
        return rows, errors


def _state(name: str, yes: bool) -> Response:
    return JSONResponse({name: yes}, 200 if yes else 503)


def _evidence(explain: str | None) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(part.strip() for part in (explain or "").split(",") if part.strip()))
    if unknown := [name for name in wanted if name not in EVIDENCE]:
        raise InputError(
            f"explain={unknown[0]!r} was given. Some of {', '.join(EVIDENCE)} were expected. Leave the rest out."
        )
    return wanted


def _answer(model: Model, results: list[Any], format: str, wanted: tuple[str, ...]) -> Response:
    """What goes out; 422 where no picture could be read."""
    failed = [one for one in results if isinstance(one, Failure)]
    broken = {"error": f"{failed[0].image}: {failed[0].error}"} if len(failed) == len(results) else {}
    if format != "json" and not broken:
        (one,) = results
        return Response(one.to_png(), media_type="image/png") if format == "png" else HTMLResponse(one.to_html())
    rows = [_explained(one, wanted) if isinstance(one, Explanation) else one.to_json() for one in results]
    about = {"model": {"name": model.name, "digest": model.digest}, "pictures": rows}
    return JSONResponse({**broken, **about}, 422 if broken else 200)


def _explained(one: Explanation, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The decision, and of the evidence what was asked for."""
    whole = one.to_json()
    kept = [key for name in wanted for key in EVIDENCE[name]]
    evidence = {key: whole[key] for key in (*kept, *ALWAYS) if key in whole}
    return {**one.prediction.to_json(), "explanation": evidence}


def _outputs(n_classes: int) -> dict[str, tuple[str, list[int]]]:
    """Name → type and the sides after the first."""
    text: tuple[str, list[int]] = ("BYTES", [])
    return {"label": text, "score": ("FP32", []), "probabilities": ("FP32", [n_classes]), "error": text}


def _read(body: bytes, model: str, most: int) -> tuple[list[tuple[bytes, str]], set[str], str | None]:
    """Files with names, outputs wanted and the id; nothing of a body with more in it than so many pictures have."""
    signs = {b"{": MOST_OBJECTS, b'"': 8 * MOST_OBJECTS + 2 * most, b"[": MOST_OBJECTS, b",": 8 * MOST_OBJECTS + most}
    if any(body.count(sign) > n for sign, n in signs.items()):
        raise InputError(
            f"The body holds more lists, texts or numbers than {most} pictures have. At most {most} files were "
            "expected. Send several requests."
        )
    try:
        request = InferRequest.model_validate(parse_json(body))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place, value = ".".join(map(str, first["loc"])) or "body", str(first["input"])[:50]
        raise InputError(
            f"The request's {place} is {value!r}: {first['msg']}. A request of KServe's v2 protocol was expected. Ask "
            f"/v2/models/{model} what it takes."
        ) from None
    except ValueError as problem:
        raise InputError(
            f"The body cannot be read: {problem}. A request of KServe's v2 protocol was expected."
        ) from problem
    return _files(request.inputs[0], most), {one.name for one in request.outputs or ()}, request.id


def _files(tensor: PictureTensor, most: int) -> list[tuple[bytes, str]]:
    """The files, and what to call each: its number. One that is no base64 is a broken picture, not a broken request."""
    data, shape = tensor.data, tensor.shape
    while len(data) == 1 and isinstance(data[0], list):
        data = data[0]
    if math.prod(shape) != len(data) or not all(isinstance(one, str) for one in data):
        raise InputError(f"'picture' of shape {shape} holds {len(data)} values. As many texts in base64 were expected.")
    if len(data) > most:
        raise InputError(
            f"{len(data)} pictures came in one request. At most {most} were expected. Send several requests."
        )
    files = []
    for i, text in enumerate(data):
        try:
            file = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            file = b"no base64"
        files.append((file, str(i)))
    return files


def _inferred(model: Model, wanted: set[str], id: str | None, probabilities: Tensor, errors: list[str]) -> Response:
    n, classes = probabilities.shape[0], model.classifier.classes
    scores, best = probabilities.max(1)
    data: dict[str, list[Any]] = {
        "label": ["" if said else classes[i] for said, i in zip(errors, best.tolist(), strict=True)],
        "score": scores.tolist(),
        "probabilities": probabilities.flatten().tolist(),
        "error": errors,
    }
    if unknown := sorted(wanted - set(data)):
        raise InputError(f"There is no output {unknown[0][:50]!r}. Ask /v2/models/{model.name} which there are.")
    outputs = [
        {"name": name, "datatype": datatype, "shape": [n, *sides], "data": data[name]}
        for name, (datatype, sides) in _outputs(len(classes)).items()
        if not wanted or name in wanted or (name == "error" and any(errors))
    ]
    named = {} if id is None else {"id": id}
    return JSONResponse({"model_name": model.name, "model_version": model.digest[:12], **named, "outputs": outputs})


def gone(request: Request, _error: Exception) -> Response:
    """Nobody reads this; the log says that the client left."""
    return Response(status_code=GONE)
