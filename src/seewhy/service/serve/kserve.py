"""The Open Inference Protocol (KServe v2, REST)."""

from __future__ import annotations

import asyncio
import base64
import itertools
import math
from importlib.metadata import version
from typing import Annotated, Any, Literal

import numpy as np
import torch
from fastapi import APIRouter, Path
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from torch import Tensor

from ...encoders.stream import Encoded
from ...errors import InputError
from ...storage.reading import parse_json
from ...types import Failure
from .entrance import VISIT
from .service import Model, Service, state, unless_gone

MOST_AXES = 4
MOST_OBJECTS = 1000
"""Maximum number of objects in a request's JSON, counted before it is parsed."""


def _printable(text: str) -> str:
    if not text.isprintable():  # an unpaired surrogate is not UTF-8
        raise ValueError("it is not printable")
    return text


Pictures = list[tuple[bytes, str]] | Tensor
"""Files with names, or pixels."""
Name = Annotated[str, Path(min_length=1, max_length=100, description="The model's name.")]
Shape = Annotated[list[Annotated[int, Field(strict=True, ge=1)]], Field(max_length=MOST_AXES)]
Values = Annotated[list[Any], Field(description="Files in base64, or numbers; flat or nested.")]


class PictureTensor(BaseModel):
    name: Literal["picture"]
    datatype: Literal["BYTES"]
    shape: Shape
    data: Values


class PixelsTensor(BaseModel):
    name: Literal["pixels"]
    datatype: Literal["FP32"]
    shape: Shape
    data: Values


class OutputName(BaseModel):
    name: str


Sent = Annotated[PictureTensor | PixelsTensor, Field(discriminator="name")]


class InferRequest(BaseModel):
    id: Annotated[str, Field(max_length=200, strict=True), AfterValidator(_printable)] | None = None
    inputs: Annotated[list[Sent], Field(min_length=1, max_length=1)]
    outputs: list[OutputName] | None = None


SCHEMA = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
PARTS = SCHEMA.pop("$defs")
"""Schemas that ``SCHEMA`` refers to, by name."""
BODY = {"required": True, "content": {"application/json": {"schema": SCHEMA}}}
router = APIRouter(prefix="/v2")


@router.get("")
async def server() -> dict[str, Any]:
    """The server's name and version."""
    return {"name": "seewhy", "version": version("seewhy"), "extensions": []}


@router.get("/health/live")
async def live(request: Request) -> JSONResponse:
    """The same as `/healthz`."""
    return state("live", request.app.state.service.is_alive)


@router.get("/models/{name}")
async def model(request: Request, name: Name) -> dict[str, Any]:
    """A model's inputs, outputs and classes. Its version is the beginning of its digest."""
    with request.app.state.service.models.use(name) as used:
        classes, transform = used.classifier.classes, used.classifier.encoder.transform
        return {
            "name": used.name,
            "versions": [used.digest[:12]],
            "platform": "seewhy",
            "inputs": [
                {"name": "picture", "datatype": "BYTES", "shape": [-1]},
                {"name": "pixels", "datatype": "FP32", "shape": [-1, 3, *transform.input_size]},
            ],
            "outputs": _outputs(-1, len(classes)),
            "parameters": {"classes": list(classes), "transform": transform.to_json()},
        }


@router.get("/models/{name}/ready")
async def model_ready(request: Request, name: Name) -> JSONResponse:
    """Whether a model accepts requests."""
    service = request.app.state.service
    with service.models.use(name) as used:
        return state("ready", used.worker.is_alive and not service.draining, name=name)


@router.post("/models/{name}/infer", openapi_extra={"requestBody": BODY})
async def infer(request: Request, name: Name) -> JSONResponse:
    """Classify `picture` (BYTES: files in base64) or `pixels` (FP32: preprocessed by the model's `transform`)."""
    if "inference-header-content-length" in request.headers:
        raise InputError("Binary tensors are not supported. Send the data as JSON.")
    service: Service = request.app.state.service
    with service.models.use(name) as used:
        body, most = await request.body(), service.settings.n_pictures
        pictures, wanted, own = await service.aside(lambda: _read(body, used, most))
        visit = request.scope[VISIT]
        visit.model, visit.pictures = used.name, len(pictures)
        rows, errors = await unless_gone(request, _decide(service, used, pictures))
        visit.failed = sum(map(bool, errors))
        return await service.aside(lambda: _answer(used, wanted, own, rows, errors))


async def _decide(service: Service, used: Model, pictures: Pictures) -> tuple[Tensor, list[str]]:
    """Return probabilities and an error for each picture; the probabilities of a failed picture are 0."""
    if isinstance(pictures, Tensor):
        parts = map(used.classifier.encoder.pooled, pictures.split(service.settings.web.batch))
        pooled = await asyncio.wrap_future(used.worker.do(lambda: torch.cat(list(parts))))
        return await service.probabilities(used, pooled), [""] * len(pictures)
    looks = await service.look(used, pictures)
    errors = [look.error if isinstance(look, Failure) else "" for look in looks]
    if all(errors):
        raise InputError(f"None of the pictures can be read. The first one {errors[0]}. Send picture files in base64.")
    good = [look.pooled for look in looks if isinstance(look, Encoded)]
    rows = torch.zeros(len(looks), len(used.classifier.classes))
    rows[[not said for said in errors]] = await service.probabilities(used, torch.cat(good))
    return rows, errors


def _outputs(n: int, n_classes: int) -> list[dict[str, Any]]:
    shapes = {"label": [n], "score": [n], "probabilities": [n, n_classes], "error": [n]}
    kinds = {"label": "BYTES", "score": "FP32", "probabilities": "FP32", "error": "BYTES"}
    return [{"name": name, "datatype": kinds[name], "shape": shape} for name, shape in shapes.items()]


def _read(body: bytes, model: Model, most: int) -> tuple[Pictures, set[str], str | None]:
    """Return a request's pictures, requested outputs and id."""
    _, height, width = expected = (3, *model.classifier.encoder.transform.input_size)
    signs = {b"{": MOST_OBJECTS, b'"': 8 * MOST_OBJECTS + 2 * most}
    signs |= {b"[": most * (3 * height + 4) + MOST_OBJECTS, b",": most * 3 * height * width + 8 * MOST_OBJECTS}
    if any(body.count(sign) > n for sign, n in signs.items()):
        raise InputError(
            f"The body must have at most {most} files, or their pixels, but it has more lists, texts "
            "or numbers. Send several requests."
        )
    try:
        request = InferRequest.model_validate(parse_json(body))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place, value = ".".join(map(str, first["loc"])) or "body", str(first["input"])[:50]
        raise InputError(
            f"{place} of the request is invalid: {first['msg']}, got {value!r}. "
            f"/v2/models/{model.name} lists the inputs."
        ) from None
    except ValueError as problem:
        raise InputError(f"The body is not valid JSON of KServe's v2 protocol: {problem}.") from problem
    (tensor,) = request.inputs
    pictures: Pictures = _files(tensor) if isinstance(tensor, PictureTensor) else _pixels(tensor, expected)
    if len(pictures) > most:
        raise InputError(f"A request may have at most {most} pictures, got {len(pictures)}. Send several requests.")
    return pictures, {one.name for one in request.outputs or ()}, request.id


def _flat(values: list[Any]) -> list[Any]:
    """Flatten nested lists; lists of unequal length are unchanged."""
    for _ in range(MOST_AXES - 1):
        if not all(isinstance(row, list) and len(row) == len(values[0]) for row in values):
            break
        values = list(itertools.chain.from_iterable(values))
    return values


def _files(tensor: PictureTensor) -> list[tuple[bytes, str]]:
    data, shape = _flat(tensor.data), tensor.shape
    if math.prod(shape) != len(data) or not all(isinstance(one, str) for one in data):
        raise InputError(
            f"'picture' of shape {shape} must have {math.prod(shape)} base64 texts, got {len(data)} values."
        )
    return [(_file(text), str(i)) for i, text in enumerate(data)]


def _file(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b"no base64"  # reported for this picture; the request stays valid


def _pixels(tensor: PixelsTensor, expected: tuple[int, ...]) -> Tensor:
    data, shape, n = _flat(tensor.data), tensor.shape, math.prod(tensor.shape)
    if tuple(shape[1:]) != expected:
        raise InputError(
            f"'pixels' must have the shape [n, {', '.join(map(str, expected))}], got {shape}. Resize the pictures."
        )
    # checked one by one, because numpy would turn all numbers into texts if one is a text
    if len(data) != n or not all(type(value) in (int, float) for value in data):
        raise InputError(f"The data of 'pixels' must be {n} numbers, as its shape says.")
    with np.errstate(over="ignore"):
        pixels = np.array(data, np.float32).reshape(shape)
    if not np.isfinite(pixels).all():
        raise InputError("'pixels' has numbers too large for FP32. Preprocess the pictures by the model's 'transform'.")
    return torch.from_numpy(pixels)


def _answer(used: Model, wanted: set[str], own: str | None, rows: Tensor, errors: list[str]) -> JSONResponse:
    scores, best = rows.max(1)
    labels = ["" if said else used.classifier.classes[i] for said, i in zip(errors, best.tolist(), strict=True)]
    data = {"label": labels, "score": scores.tolist(), "probabilities": rows.flatten().tolist(), "error": errors}
    if unknown := sorted(wanted - set(data)):
        raise InputError(f"There is no output {unknown[0][:50]!r}. /v2/models/{used.name} lists the outputs.")
    kept = wanted or set(data)
    if any(errors):
        kept = kept | {"error"}
    outputs = [{**one, "data": data[one["name"]]} for one in _outputs(*rows.shape) if one["name"] in kept]
    named = {} if own is None else {"id": own}
    return JSONResponse({"model_name": used.name, "model_version": used.digest[:12], **named, "outputs": outputs})
