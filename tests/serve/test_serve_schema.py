"""The service's OpenAPI document under test: what it allows, and more, is asked; nothing may break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed, so there is no service")

from starlette.testclient import TestClient

from documented import ask_documented, operations
from seewhy.classifiers.base import Classifier
from seewhy.service.serve import make_service

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
    with TestClient(make_service({"tiny": fitted}), base_url="http://localhost:8000") as client:
        yield client


def test_the_list_above_is_complete(service: TestClient) -> None:
    assert operations(service) == sorted(PATHS)


@pytest.mark.parametrize(("method", "path"), [one for one in PATHS if "health" not in one[1]])
def test_whatever_is_asked_gets_an_answer_the_document_knows(service: TestClient, method: str, path: str) -> None:
    def has_an_id_and_says_so_in_json(_case: Any, response: Any) -> None:
        assert len(response.headers["x-request-id"]) == 32
        if response.status_code >= 400:
            assert "error" in response.json()

    ask_documented(service, method, path, {"name": "tiny"}, has_an_id_and_says_so_in_json)
