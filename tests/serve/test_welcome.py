"""What a browser sees at the service's root; programs get what they got."""

from __future__ import annotations

from collections.abc import Callable

from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier

TOKEN = "a-token-of-30-characters-or-so"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_reads_what_it_is_and_a_program_gets_an_error(
    client: Callable[..., TestClient], fitted: Classifier
) -> None:
    service = client(fitted)
    page = service.get("/", headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for part in ("tiny", "3: moss, rust, sky", "POST /predict", "/openapi.json", "/v2/models/{name}/infer"):
        assert part in page.text
    assert 'curl -F picture=@photo.jpg "http://localhost:8000/predict?explain=where"' in page.text
    for accepts in ({}, {"accept": "application/json"}):
        answer = service.get("/", headers=accepts)
        assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})
    assert "/docs" not in service.get("/openapi.json").json()["paths"]


def test_with_a_token_the_page_names_no_classifier_and_nothing_else_opens(
    client: Callable[..., TestClient], fitted: Classifier
) -> None:
    service = client(fitted, token=TOKEN)
    page = service.get("/", headers=BROWSER)
    assert page.status_code == 200
    assert "Authorization: Bearer TOKEN" in page.text
    for secret in ("tiny", "moss", TOKEN):
        assert secret not in page.text
    assert service.get("/").status_code == 401
    for path in ("/version", "/openapi.json", "/metrics", "/v2/models/tiny"):
        assert service.get(path, headers=BROWSER).status_code == 401
