"""The Open Inference Protocol, as KServe's v2 REST has it: metadata, readiness, ``infer`` on pictures or on pixels."""

from __future__ import annotations

import base64
import binascii
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal

import numpy as np
import torch
from fastapi import FastAPI
from fastapi import Path as InPath
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from torch import Tensor

from ...encoders.stream import Encoded
from ...errors import InputError
from ...storage.reading import parse_json
from ...types import Failure
from .answers import ASKED, JSON_ANSWER, error, unless_gone, visit_of
from .service import Model, Service

PICTURE, PIXELS = "picture", "pixels"


def _printable(text: str) -> str:
    if not text.isprintable():  # half a character is not
        raise ValueError("it is not printable")
    return text


MOST_AXES = 4
MOST_OBJECTS = 1000
"""Of a request's JSON, counted before it is read."""

Name = Annotated[str, InPath(min_length=1, max_length=100, description="As it is served.")]
Axis = Annotated[int, Field(strict=True, ge=1)]
Values = Annotated[list[Any], Field(description="Files in base64, or numbers, flat or nested.")]


class PictureTensor(BaseModel):
    name: Literal["picture"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[Axis], Field(max_length=MOST_AXES)]
    data: Values


class PixelsTensor(BaseModel):
    name: Literal["pixels"]
    datatype: Literal["FP32"]
    shape: Annotated[list[Axis], Field(max_length=MOST_AXES)]
    data: Values


class OutputName(BaseModel):
    name: str


class InferRequest(BaseModel):
    id: Annotated[str, Field(max_length=200, strict=True), AfterValidator(_printable)] | None = None
    inputs: Annotated[
        list[Annotated[PictureTensor | PixelsTensor, Field(discriminator="name")]], Field(min_length=1, max_length=1)
    ]
    outputs: list[OutputName] | None = None


def _inlined(node: Any, parts: Mapping[str, Any]) -> Any:
    """A schema with what it refers to in its place, as a document of OpenAPI can hold it."""
    if isinstance(node, list):
        return [_inlined(one, parts) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(parts[node["$ref"].rpartition("/")[2]], parts)
    return {key: _inlined(value, parts) for key, value in node.items() if key not in ("$defs", "discriminator")}


SCHEMA = InferRequest.model_json_schema()
BODY = {"required": True, "content": {"application/json": {"schema": _inlined(SCHEMA, SCHEMA["$defs"])}}}


class KServe:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def mount(self, app: FastAPI) -> None:
        """Give each its address."""
        plain: dict[str, Any] = {"response_class": JSONResponse, "response_model": None}
        known = {"responses": {**JSON_ANSWER, **error(404, "There is no such model.")}, **plain}
        app.add_api_route("/v2", self.server, responses=JSON_ANSWER, **plain)
        app.add_api_route("/v2/health/live", self.live, responses=JSON_ANSWER, **plain)
        app.add_api_route("/v2/health/ready", self.ready, responses=JSON_ANSWER, **plain)
        app.add_api_route("/v2/models/{name}", self.model, **known)
        app.add_api_route("/v2/models/{name}/ready", self.model_ready, **known)
        infer: dict[str, Any] = {"responses": {**JSON_ANSWER, **ASKED}, "openapi_extra": {"requestBody": BODY}}
        app.add_api_route("/v2/models/{name}/infer", self.infer, methods=["POST"], **infer, **plain)

    async def server(self) -> Response:
        """What serves."""
        return JSONResponse({"name": "seewhy", "version": version("seewhy"), "extensions": []})

    async def live(self) -> Response:
        """As `/healthz`."""
        return JSONResponse({"live": self.service.is_alive}, 200 if self.service.is_alive else 503)

    async def ready(self) -> Response:
        """As `/readyz`."""
        return JSONResponse({"ready": self.service.is_ready}, 200 if self.service.is_ready else 503)

    async def model(self, name: Name) -> Response:
        """A model's inputs, outputs and classes; its version is the start of its digest."""
        with self.service.models.use(name) as used:
            return JSONResponse(_about(used))

    async def model_ready(self, name: Name) -> Response:
        """Whether a model takes requests."""
        with self.service.models.use(name) as used:
            ready = used.worker.is_alive and not self.service.draining
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request, name: Name) -> Response:
        """Decide on `picture` (BYTES: files in base64) or on `pixels` (FP32: made ready as the model's card says)."""
        if "inference-header-content-length" in request.headers:
            raise InputError("Tensors came in binary. JSON alone was expected. Send data as JSON.")
        with self.service.models.use(name) as used:
            body = await request.body()
            most = self.service.settings.n_pictures
            asked = await self.service.aside(lambda: _read(body, used, most))
            visit = visit_of(request)
            visit.model, visit.pictures = used.name, len(asked.pictures)
            pictures = asked.pictures
            work = self._pixels(used, pictures) if isinstance(pictures, Tensor) else self._pictures(used, pictures)
            probabilities, errors = await unless_gone(request, work)
            visit.failed = sum(map(bool, errors))
            return await self.service.aside(lambda: _answer(used, asked, probabilities, errors))

    async def _pictures(self, model: Model, files: list[tuple[bytes, str]]) -> tuple[Tensor, list[str]]:
        """A row of probabilities per picture, and why there is none: then the row is 0."""
        looks = await self.service.look(model, files)
        errors = [look.error if isinstance(look, Failure) else "" for look in looks]
        if all(errors):
            raise InputError(f"No picture could be read. The first one {errors[0]}.")
        good = [look.pooled for look in looks if isinstance(look, Encoded)]
        rows = torch.zeros(len(looks), len(model.classifier.classes))
        rows[[not said for said in errors]] = await self.service.probabilities(model, torch.cat(good))
        return rows, errors

    async def _pixels(self, model: Model, pixels: Tensor) -> tuple[Tensor, list[str]]:
        pooled = await self.service.encode(model, pixels)
        return await self.service.probabilities(model, pooled), [""] * len(pixels)


def _about(model: Model) -> dict[str, Any]:
    classifier = model.classifier
    height, width = classifier.encoder.transform.input_size
    return {
        "name": model.name,
        "versions": [model.digest[:12]],
        "platform": "seewhy",
        "inputs": [
            {"name": PICTURE, "datatype": "BYTES", "shape": [-1]},
            {"name": PIXELS, "datatype": "FP32", "shape": [-1, 3, height, width]},
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(classifier.classes)]},
            {"name": "error", "datatype": "BYTES", "shape": [-1]},
        ],
        "parameters": {"classes": list(classifier.classes), "transform": classifier.encoder.transform.to_json()},
    }


@dataclass(frozen=True)
class Asked:
    """A request, without the JSON that it was read from: files with names, or pixels; outputs, none for all."""

    pictures: list[tuple[bytes, str]] | Tensor
    outputs: frozenset[str]
    id: str | None


def _read(body: bytes, model: Model, most: int) -> Asked:
    """The request, unless it has more in it than one of so many pictures can have."""
    _, height, width = expected = (3, *model.classifier.encoder.transform.input_size)
    signs = {b"{": MOST_OBJECTS, b'"': 8 * MOST_OBJECTS + 2 * most}
    signs |= {b"[": most * (3 * height + 4) + MOST_OBJECTS, b",": most * 3 * height * width + 8 * MOST_OBJECTS}
    if any(body.count(sign) > n for sign, n in signs.items()):
        raise InputError(
            f"The body holds more lists, texts or numbers than {most} pictures have. At most {most} files, or pixels "
            "of as many, were expected. Send several requests."
        )
    try:
        request = InferRequest.model_validate(parse_json(body))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place, value = ".".join(map(str, first["loc"])) or "body", str(first["input"])[:50]
        raise InputError(
            f"The request's {place} is {value!r}: {first['msg']}. A request of KServe's v2 protocol was expected. Ask "
            f"/v2/models/{model.name} what it takes."
        ) from None
    except ValueError as problem:
        raise InputError(
            f"The body cannot be read: {problem}. A request of KServe's v2 protocol was expected."
        ) from problem
    (tensor,) = request.inputs
    pictures = _files(tensor, most) if isinstance(tensor, PictureTensor) else _pixels(tensor, expected, most)
    return Asked(pictures, frozenset(one.name for one in request.outputs or ()), request.id)


def _count(n: int, most: int) -> None:
    if n > most:
        raise InputError(f"{n} pictures came in one request. At most {most} were expected. Send several requests.")


def _files(tensor: PictureTensor, most: int) -> list[tuple[bytes, str]]:
    """The files, and what to call each: its number. One that is no base64 is a broken picture, not a broken request."""
    data, shape = tensor.data, tensor.shape
    while len(data) == 1 and isinstance(data[0], list):
        data = data[0]
    if math.prod(shape) != len(data) or not all(isinstance(one, str) for one in data):
        raise InputError(
            f"{PICTURE!r} of shape {shape} holds {len(data)} values. As many texts in base64 were expected."
        )
    _count(len(data), most)
    found = []
    for i, text in enumerate(data):
        try:
            file = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            file = b"no base64"
        found.append((file, str(i)))
    return found


def _pixels(tensor: PixelsTensor, expected: tuple[int, ...], most: int) -> Tensor:
    """Pixels as the encoder takes them."""
    shape = tensor.shape
    if tuple(shape[1:]) != expected:
        raise InputError(f"{PIXELS!r} has the shape {shape}. [n, {', '.join(map(str, expected))}] was expected.")
    _count(shape[0], most)
    try:
        with np.errstate(over="ignore"):
            pixels = np.array(_numbers(tensor.data), np.float32).reshape(shape)
    except (ValueError, OverflowError) as problem:
        raise InputError(
            f"The data of {PIXELS!r} are not {math.prod(shape)} numbers. Send as many as its shape."
        ) from problem
    if not np.isfinite(pixels).all():
        raise InputError(f"{PIXELS!r} holds numbers beyond what FP32 holds. Send pixels made ready for the model.")
    return torch.from_numpy(pixels)


def _numbers(values: list[Any]) -> list[float]:
    """Numbers, flat or nested, one after the other.

    Of a text among them numpy would make texts of all, each with room for the longest.
    """
    for _ in range(MOST_AXES - 1):
        if not values or not isinstance(values[0], list):
            break
        if not all(isinstance(row, list) and len(row) == len(values[0]) for row in values):
            raise ValueError("rows are of unequal length")
        values = list(itertools.chain.from_iterable(values))
    if not all(type(value) in (int, float) for value in values):
        raise ValueError("they are no numbers")
    return values


def _answer(model: Model, asked: Asked, probabilities: Tensor, errors: list[str]) -> Response:
    n, classes = probabilities.shape[0], model.classifier.classes
    scores, best = probabilities.max(1)
    labels = ["" if said else classes[i] for said, i in zip(errors, best.tolist(), strict=True)]
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [n], "data": labels},
        {"name": "score", "datatype": "FP32", "shape": [n], "data": scores.tolist()},
        {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [n, len(classes)],
            "data": probabilities.flatten().tolist(),
        },
        {"name": "error", "datatype": "BYTES", "shape": [n], "data": errors},
    ]
    wanted = asked.outputs
    if unknown := sorted(wanted - {one["name"] for one in outputs}):
        raise InputError(f"There is no output {unknown[0][:50]!r}. Ask /v2/models/{model.name} which there are.")
    kept = [one for one in outputs if not wanted or one["name"] in wanted or (one["name"] == "error" and any(errors))]
    named = {} if asked.id is None else {"id": asked.id}
    return JSONResponse({"model_name": model.name, "model_version": model.digest[:12], **named, "outputs": kept})
