"""The service's OpenAPI document under test: what it allows, and more, is asked; nothing may break."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed, so there is no service")

from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.serve import make_service

pytestmark = pytest.mark.slow
PATHS = (
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/version"),
    ("GET", "/metrics"),
    ("POST", "/predict"),
    ("GET", "/v2"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models/{name}"),
    ("GET", "/v2/models/{name}/ready"),
    ("POST", "/v2/models/{name}/infer"),
)


@pytest.fixture(scope="module")
def service(fitted: Classifier) -> Iterator[TestClient]:
    torch.set_flush_denormal(False)  # what ran before in this thread may have set it; hypothesis draws such numbers
    with TestClient(make_service({"tiny": fitted}), base_url="http://localhost:8000") as client:
        yield client


def test_the_list_above_is_complete(service: TestClient) -> None:
    paths = service.get("/openapi.json").json()["paths"]
    assert sorted((m.upper(), path) for path, methods in paths.items() for m in methods) == sorted(PATHS)


@pytest.mark.parametrize(("method", "path"), [one for one in PATHS if "health" not in one[1]])
def test_whatever_is_asked_gets_an_answer_the_document_knows(service: TestClient, method: str, path: str) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    import requests

    operation = schemathesis.openapi.from_dict(service.get("/openapi.json").json())[path][method]
    documented = {int(code) for code in operation.definition.raw["responses"]}
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
            if known and "name" in (case.path_parameters or {}):
                case.path_parameters["name"] = "tiny"
            made = requests.Request(**case.as_transport_kwargs(base_url="http://localhost:8000")).prepare()
            headers = {k: v for k, v in made.headers.items() if k.lower() not in ("host", "origin", "cookie")}
            response = service.request(str(made.method), str(made.url), content=made.body, headers=headers)
            seen.append(response.status_code)
            assert response.status_code < 500, response.text
            assert response.status_code in documented | {400, 404, 405}, (response.status_code, response.text)
            assert len(response.headers["x-request-id"]) == 32
            if response.status_code >= 400:
                assert "error" in response.json()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given(case=operation.as_strategy())(ask)()
    assert seen
