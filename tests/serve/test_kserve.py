"""KServe's v2 protocol: the same decisions as /predict, from files in base64 and from pixels."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from forms import files
from schemas import check
from seewhy.classifiers.base import Classifier
from seewhy.pictures.images import read_picture

Client = Callable[..., TestClient]
INFER = "/v2/models/tiny/infer"


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def asks(*data: Any, name: str = "picture", datatype: str = "BYTES", shape: Any = None, **rest: Any) -> dict[str, Any]:
    tensor = {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": list(data)}
    return {"inputs": [tensor], **rest}


def outputs(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    check("serve-infer", [answer.json()])
    return {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer.json()["outputs"]}


def test_files_and_pixels_are_decided_as_by_predict(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted)
    rows = service.post("/predict?top=3", files=files(*pictures)).json()["pictures"]
    by_file = outputs(service.post(INFER, json=asks(*map(text, pictures), id="one")))
    views = [read_picture(one, fitted.encoder.transform).pixels for one in pictures]
    pixels = fitted.encoder.pixels(views)
    sent = asks(*pixels.flatten().tolist(), name="pixels", datatype="FP32", shape=list(pixels.shape))
    by_pixels = outputs(service.post(INFER, json=sent))
    for found in (by_file, by_pixels):
        assert found["label"].tolist() == [row["label"] for row in rows]
        assert np.abs(found["score"] - [row["score"] for row in rows]).max() < 1e-5
        assert np.abs(found["probabilities"].sum(1) - 1).max() < 1e-5
        assert set(found["error"]) == {""}
    nested = asks(*pixels.tolist(), name="pixels", datatype="FP32", shape=list(pixels.shape))
    assert np.abs(outputs(service.post(INFER, json=nested))["score"] - by_pixels["score"]).max() < 1e-6


def test_a_broken_picture_has_an_error_of_its_own(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted)
    data = (text(pictures[0]), "http://localhost:9/a.png", text(b"no picture"), text(pictures[1]))
    found = outputs(service.post(INFER, json=asks(*data, outputs=[{"name": "label"}])))
    assert set(found) == {"label", "error"}
    assert [bool(one) for one in found["label"]] == [True, False, False, True]
    assert [bool(one) for one in found["error"]] == [False, True, True, False]
    alone = service.post(INFER, json=asks(text(b"no picture")))
    assert alone.status_code == 422
    assert alone.json()["error"].startswith("None of the pictures can be read. The first one")


def test_what_is_served_says_so(client: Client, fitted: Classifier) -> None:
    service = client(fitted)
    assert service.get("/v2").json()["name"] == "seewhy"
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}
    told = service.get("/v2/models/tiny").json()
    check("serve-model", [told])
    assert told["versions"] == [fitted.digest[:12]]
    assert told["parameters"]["classes"] == list(fitted.classes)
    assert service.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    for path in ("", "/ready"):
        assert service.get(f"/v2/models/none{path}").status_code == 404
    service.app.state.service.draining = True  # type: ignore[attr-defined]
    assert service.get("/v2/health/ready").status_code == 503


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "The body is not valid JSON of KServe's v2 protocol:"),
        (b"[" * 2000, "The body is not valid JSON of KServe's v2 protocol:"),
        (
            b"[" * 100_000,
            (
                "The body must have at most 32 files, or their pixels, but it has more lists, texts "
                "or numbers. Send several requests."
            ),
        ),
        (b"[]", " of the request is invalid:"),
        (b'{"inputs": [1]}', " of the request is invalid:"),
        (asks("", name="image"), "inputs.0 of the request is invalid:"),
        (
            asks("", datatype="FP32"),
            "inputs.0.picture.datatype of the request is invalid: Input should be 'BYTES', got 'FP32'",
        ),
        (asks("", shape=[True]), " of the request is invalid:"),
        (asks("", shape=[1] * 5), " of the request is invalid:"),
        (asks("", shape=[2]), "'picture' of shape [2] must have"),
        (asks(1), "'picture' of shape [1] must have"),
        (asks(*["a"] * 33), "pictures, got 33. Send several requests."),
        (asks("a", outputs=[1]), "outputs.0 of the request is invalid:"),
        (asks("a", id=1), "id of the request is invalid:"),
        (asks(0, name="pixels", datatype="FP32", shape=[1, 3, 1, 1]), "'pixels' must have the shape [n,"),
    ],
)
def test_what_is_no_request_is_one_sentence(client: Client, fitted: Classifier, body: Any, said: str) -> None:
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = client(fitted).post(INFER, **sent)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("value", "said"), [("x", "must be"), (1e300, "too large for FP32"), (None, "must be"), ([1], "must be")]
)
def test_pixels_are_finite_numbers(client: Client, fitted: Classifier, value: Any, said: str) -> None:
    shape = [1, 3, *fitted.encoder.transform.input_size]
    data = [value, *[0.0] * (int(np.prod(shape)) - 1)]
    answer = client(fitted).post(INFER, json=asks(*data, name="pixels", datatype="FP32", shape=shape))
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    short = asks(0.0, name="pixels", datatype="FP32", shape=shape)
    assert "must be" in client(fitted).post(INFER, json=short).json()["error"]


def test_an_output_that_is_none_is_named(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    answer = client(fitted).post(INFER, json=asks(text(pictures[0]), outputs=[{"name": "heat"}]))
    assert answer.json()["error"] == "There is no output 'heat'. /v2/models/tiny lists the outputs."
    binary = client(fitted).post(INFER, content=b"", headers={"inference-header-content-length": "1"})
    assert "Binary tensors are not supported. Send the data as JSON." in binary.json()["error"]
