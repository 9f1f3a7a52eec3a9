"""The annotation pages over HTTP: conflicts, strangers, limits, and whatever else the OpenAPI document allows."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from starlette.testclient import TestClient

from seewhy.annotation.desk import AnnotationDesk, find_pictures
from seewhy.annotation.records import BoxedObject, Picture
from seewhy.annotation.seeding import Seed
from seewhy.annotation.side_by_side import DIMENSIONS
from seewhy.annotation.store import AnnotationStore
from seewhy.app.annotate import make_annotation_app


def proposes(name: str) -> Seed:
    return Seed("the model (x)", (BoxedObject("s1", "square", (0.1, 0.1, 0.5, 0.5), "red"),), "There is a red square.")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> AnnotationDesk:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(4):
        Image.fromarray(np.full((30, 40, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    store = AnnotationStore(folder / "a.sqlite")
    store.add_pictures(p for p in find_pictures(map(str, sorted(folder.glob("*.png")))) if isinstance(p, Picture))
    return AnnotationDesk(store, seeder=proposes)


@pytest.fixture(scope="module")
def page(desk: AnnotationDesk) -> Iterator[TestClient]:
    with TestClient(make_annotation_app(desk), base_url="http://localhost:8000") as client:
        yield client


def key_of(desk: AnnotationDesk, i: int) -> str:
    return desk.store.pictures()[i].key


def test_a_proposal_is_where_people_begin(page: TestClient, desk: AnnotationDesk) -> None:
    key = key_of(desk, 0)
    data = page.get(f"/caption/{key}?as=Ann&format=json").json()
    assert data["content"] == {"text": "There is a red square."}
    assert (data["latest"], data["latest_author"], data["is_draft"]) == (0, "the model (x)", False)
    assert [o["label"] for o in data["objects"]] == ["square"]
    assert "proposed by the model (x)" in page.get(f"/caption/{key}?as=Ann").text


def test_a_conflict_answers_with_both_and_changes_nothing(page: TestClient, desk: AnnotationDesk) -> None:
    key = key_of(desk, 1)
    page.get(f"/caption/{key}?as=Ann")
    body = {"author": "Ann", "content": {"text": "A large red square."}, "base": 0}
    assert page.post(f"/save/{key}/caption", json=body).json() == {"number": 1, "finished": None}
    late = {"author": "Bob", "content": {"text": "There is a red square. It is flat."}, "base": 0}
    answer = page.post(f"/save/{key}/caption", json=late)
    assert answer.status_code == 409
    data = answer.json()
    assert data["error"] == "Ann saved version 1 while you were writing."
    assert data["merged"] == {"text": "A large red square. It is flat."}
    assert data["clash"] is False
    assert len(desk.store.versions(key, "caption")) == 2
    assert [d.content for d in desk.store.shelved(key, "caption", "Bob")] == [late["content"]]
    aside = page.post(f"/aside/{key}/caption", json={"author": "Bob"}).json()
    assert aside["content"] == {"text": "A large red square."}
    assert aside["shelved"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/caption/nope?as=Ann", 404),
        ("/picture/..%2f..%2fetc%2fpasswd", 404),
        ("/picture/nope", 404),
        ("/state/nope/caption?as=Ann", 404),
    ],
)
def test_strangers_get_a_404(page: TestClient, path: str, status: int) -> None:
    assert page.get(path).status_code == status


def test_without_a_name_the_list_asks_for_it(page: TestClient, desk: AnnotationDesk) -> None:
    answer = page.get(f"/objects/{key_of(desk, 0)}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert page.get(f"/state/{key_of(desk, 0)}/caption").status_code == 422


def test_another_page_may_not_write(page: TestClient, desk: AnnotationDesk) -> None:
    body = {"author": "Ann", "content": {"text": "x"}, "base": 0}
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://elsewhere.example"}):
        assert page.post(f"/save/{key_of(desk, 2)}/caption", json=body, headers=headers).status_code == 403
    assert page.get("/", headers={"host": "elsewhere.example"}).status_code == 421
    assert desk.store.versions(key_of(desk, 2), "caption") == ()


def test_a_wrong_body_says_what_is_wrong(page: TestClient, desk: AnnotationDesk) -> None:
    key = key_of(desk, 2)
    box = {"objects": [{"id": "a", "label": "x", "box": [0, 0, 2, 1], "description": "", "attributes": []}]}
    answer = page.post(f"/draft/{key}/objects?format=json", json={"author": "Ann", "content": box, "base": 0})
    assert answer.status_code == 422
    assert "Draw it anew" in answer.json()["error"]
    for body in ({}, {"author": "Ann", "content": {}, "base": 10**30}, {"author": "", "content": {}, "base": 0}):
        assert page.post(f"/draft/{key}/caption", json=body).status_code == 422
    infinite = '{"author": "Ann", "content": {}, "base": 0, "seconds": 1e999}'
    headers = {"content-type": "application/json"}
    assert page.post(f"/draft/{key}/caption", content=infinite, headers=headers).status_code == 422


def test_the_export_on_the_page_is_the_file(page: TestClient, desk: AnnotationDesk) -> None:
    lines = page.get("/annotations.jsonl").text.splitlines()
    assert [json.loads(line)["image"] for line in lines] == [p.name for p in desk.store.pictures()]
    assert all(Path(json.loads(line)["image"]).suffix == ".png" for line in lines)


def operations(page: TestClient) -> list[tuple[str, str]]:
    paths = page.get("/openapi.json").json()["paths"]
    return sorted((method, path) for path, methods in paths.items() for method in methods)


@pytest.mark.slow
def test_whatever_is_asked_gets_an_answer_the_document_knows(page: TestClient, desk: AnnotationDesk) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    schema = schemathesis.openapi.from_dict(page.get("/openapi.json").json())
    known = key_of(desk, 3)
    assert len(operations(page)) == 14
    for method, path in operations(page):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked(page, schema[path][method.upper()], path, known)


def asked(page: TestClient, operation: Any, path: str, known: str) -> None:
    """Requests that the document allows, and some that it does not."""
    import requests

    documented = {int(code) for code in operation.definition.raw["responses"]} | {400, 404, 405}

    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        for is_known in (False, True):
            if is_known and "key" in (case.path_parameters or {}):
                case.path_parameters["key"] = known
            made = requests.Request(**case.as_transport_kwargs(base_url="http://localhost:8000")).prepare()
            headers = {k: v for k, v in made.headers.items() if k.lower() not in ("host", "origin", "cookie")}
            answer = page.request(
                str(made.method), str(made.url), content=made.body, headers=headers, follow_redirects=False
            )
            assert answer.status_code < 500, (path, answer.text)
            assert answer.status_code in documented, (path, answer.status_code, answer.text)

    ask()


def test_a_comparison_over_http(page: TestClient, desk: AnnotationDesk) -> None:
    key = key_of(desk, 1)
    shown = page.get(f"/compare/{key}?as=Cy&format=json").json()["pair"]
    last = desk.store.versions(key, "caption")[-1].content["text"]
    answers = dict.fromkeys(DIMENSIONS, 2 if shown["a"] == last else -2)
    body = {"author": "Cy", "answers": answers, "token": shown["token"]}
    assert page.post(f"/judge/{key}", json=body).json() == {"kept": True}
    nets = page.get("/preferences?format=json").json()["against"]
    assert next(iter(nets.values()))["mean"]["value"] == 1
    assert page.post(f"/judge/{key}", json={**body, "token": "stale"}).status_code == 422
