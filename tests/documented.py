"""Whatever an app's OpenAPI document allows, and more, is asked: each answer is one that the document knows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient


def operations(client: TestClient) -> list[tuple[str, str]]:
    """Method and path of each address in the document."""
    paths = client.get("/openapi.json").json()["paths"]
    return sorted((method.upper(), path) for path, methods in paths.items() for method in methods)


def ask_documented(
    client: TestClient,
    method: str,
    path: str,
    known: Mapping[str, str],
    check: Callable[[Any, Any], None],
    n: int = 12,
) -> None:
    """Send requests to one address, once as they were made up and once with what is known.

    Args:
        client: of the app.
        method: in capitals.
        path: as the document has it.
        known: values of parameters in the path that lead somewhere.
        check: sees each request and its answer, after its status was held to the document.
        n: requests that are made up.
    """
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    import requests

    operation = schemathesis.openapi.from_dict(client.get("/openapi.json").json())[path][method]
    documented = {int(code) for code in operation.definition.raw["responses"]} | {400, 404, 405}
    seen: list[int] = []

    @settings(
        max_examples=n,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def ask(case: Any) -> None:
        for parameters in ({}, known):
            for name in parameters.keys() & (case.path_parameters or {}).keys():
                case.path_parameters[name] = parameters[name]
            made = requests.Request(**case.as_transport_kwargs(base_url="http://localhost:8000")).prepare()
            headers = {k: v for k, v in made.headers.items() if k.lower() not in ("host", "origin", "cookie")}
            answer = client.request(
                str(made.method), str(made.url), content=made.body, headers=headers, follow_redirects=False
            )
            seen.append(answer.status_code)
            assert answer.status_code < 500, (path, answer.text)
            assert answer.status_code in documented, (path, answer.status_code, answer.text)
            check(case, answer)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given(case=operation.as_strategy())(ask)()
    assert seen
