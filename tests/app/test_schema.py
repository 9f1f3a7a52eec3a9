"""The OpenAPI document under test: everything it allows, and more, is asked; nothing may break or answer otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

from seewhy.app import Settings, make_app
from seewhy.classifiers.base import Classifier

pytestmark = pytest.mark.slow
PATHS = (
    ("GET", "/"),
    ("POST", "/look"),
    ("GET", "/card/{id}"),
    ("GET", "/card/{id}/words"),
    ("GET", "/card/{id}/place"),
    ("POST", "/card/{id}/edit"),
    ("POST", "/card/{id}/reset"),
    ("GET", "/descriptions"),
    ("GET", "/mistakes"),
    ("GET", "/changes"),
    ("GET", "/sample/{index}"),
    ("GET", "/sample/{index}/thumbnail"),
    ("GET", "/help"),
)


@pytest.fixture(scope="module")
def page(fitted: Classifier) -> Iterator[TestClient]:
    torch.set_flush_denormal(False)  # what ran before in this thread may have set it; hypothesis draws such numbers
    app = make_app(fitted, Settings())
    with TestClient(app, base_url="http://localhost:8000") as client:
        yield client


def send(page: TestClient, case: Any) -> Any:
    """The request that schemathesis made up, as bytes, through the client."""
    import requests

    made = requests.Request(**case.as_transport_kwargs(base_url="http://localhost:8000")).prepare()
    headers = {k: v for k, v in made.headers.items() if k.lower() not in ("host", "origin", "cookie")}
    return page.request(str(made.method), str(made.url), content=made.body, headers=headers)


def test_the_list_above_is_complete(page: TestClient) -> None:
    paths = page.get("/openapi.json").json()["paths"]
    assert sorted((m.upper(), path) for path, methods in paths.items() for m in methods) == sorted(PATHS)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_whatever_is_asked_gets_an_answer_the_document_knows(
    page: TestClient, sky: bytes, method: str, path: str
) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    schema = schemathesis.openapi.from_dict(page.get("/openapi.json").json())
    operation = schema[path][method]
    shown = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()["id"]
    seen: list[int] = []

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def ask(case: Any) -> None:
        for known in (False, True):
            if known and "id" in (case.path_parameters or {}):
                case.path_parameters["id"] = shown
            response = send(page, case)
            seen.append(response.status_code)
            assert response.status_code < 500, response.text
            documented = {int(code) for code in operation.definition.raw["responses"]}
            assert response.status_code in documented | {400, 404, 405}, (response.status_code, response.text)
            if response.status_code >= 400 and case.query and case.query.get("format") == "json":
                assert set(response.json()) == {"error"}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given(case=operation.as_strategy())(ask)()
    assert seen
