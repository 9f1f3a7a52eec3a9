"""The annotation pages over HTTP: conflicts, strangers, limits, and whatever else the OpenAPI document allows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from starlette.testclient import TestClient

from documented import ask_documented, operations
from seewhy.language.annotation.desk import AnnotationDesk, Seed, find_pictures
from seewhy.language.annotation.records import DIMENSIONS, BoxedObject, Picture
from seewhy.language.annotation.rounds import StopRule
from seewhy.language.annotation.store import AnnotationStore
from seewhy.service.app.annotate import PICTURES_A_PAGE, make_annotation_app


def proposes(name: str) -> Seed:
    return "the model (x)", [BoxedObject("s1", "square", (0.1, 0.1, 0.5, 0.5), "red")], "There is a red square."


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
    assert "a proposal by the model (x)" in page.get(f"/caption/{key}?as=Ann").text


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
    assert [d.content for d in desk.store.drafts(key, "caption", "Bob", "shelved")] == [late["content"]]
    aside = page.post(f"/aside/{key}/caption", json={"author": "Bob"}).json()
    assert aside["content"] == {"text": "A large red square."}
    assert aside["shelved"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/caption/nope?as=Ann", 404),
        ("/picture/..%2f..%2fetc%2fpasswd", 404),
        ("/picture/nope", 404),
    ],
)
def test_strangers_get_a_404(page: TestClient, path: str, status: int) -> None:
    assert page.get(path).status_code == status


def test_an_error_leads_nowhere_that_is_not_there(page: TestClient) -> None:
    text = page.get("/caption/nope?as=Ann").text
    assert "There is no picture at this address." in text
    addresses = re.findall(r'(?:href|src)="(/[^"]*)"', text)
    assert addresses
    assert [a for a in addresses if page.get(a).status_code != 200] == []


def test_without_a_name_the_list_asks_for_it(page: TestClient, desk: AnnotationDesk) -> None:
    answer = page.get(f"/objects/{key_of(desk, 0)}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert page.get("/next").status_code == 422


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
    assert "Draw it again" in answer.json()["error"]
    for body in ({}, {"author": "Ann", "content": {}, "base": 10**30}, {"author": "", "content": {}, "base": 0}):
        assert page.post(f"/draft/{key}/caption", json=body).status_code == 422
    infinite = '{"author": "Ann", "content": {}, "base": 0, "seconds": 1e999}'
    headers = {"content-type": "application/json"}
    assert page.post(f"/draft/{key}/caption", content=infinite, headers=headers).status_code == 422


def test_the_export_on_the_page_is_the_file(page: TestClient, desk: AnnotationDesk) -> None:
    lines = page.get("/annotations.jsonl").text.splitlines()
    assert [json.loads(line)["image"] for line in lines] == [p.name for p in desk.store.pictures()]
    assert all(Path(json.loads(line)["image"]).suffix == ".png" for line in lines)


def test_the_list_says_how_far_all_are_and_what_waits(tmp_path: Path) -> None:
    for i in range(PICTURES_A_PAGE + 2):
        Image.fromarray(np.full((3, 4, 3), i, np.uint8)).save(tmp_path / f"{i:03}.png")
    store = AnnotationStore(tmp_path / "a.sqlite")
    store.add_pictures(p for p in find_pictures(map(str, sorted(tmp_path.glob("*.png")))) if isinstance(p, Picture))
    keys = [p.key for p in store.pictures()]
    desk = AnnotationDesk(store, StopRule(2))
    with TestClient(make_annotation_app(desk), base_url="http://localhost:8000") as page:

        def next_for(name: str) -> tuple[str | None, str | None]:
            data = page.get(f"/next?as={name}&format=json").json()
            return data["picture"], data["task"]

        assert next_for("Ann") == (keys[0], "objects")
        store.save(keys[0], "objects", "Ann", {"objects": []}, 0, 90)
        assert next_for("Ann") == (keys[0], "caption")
        store.save(keys[0], "caption", "Ann", {"text": "A thing."}, 0, 60)
        assert next_for("Ann") == (keys[1], "objects"), "her own text waits for another person"
        assert next_for("Bob") == (keys[0], "caption")
        store.keep_draft(keys[5], "caption", "Bob", {"text": "Begun"}, 0, 1, 0)
        assert next_for("Bob") == (keys[5], "caption"), "what was begun comes first"
        store.save(keys[0], "caption", "Bob", {"text": "A small thing."}, 1, 60)
        led = page.get("/next?as=Cy", follow_redirects=False)
        assert (led.status_code, led.headers["location"]) == (303, f"/objects/{keys[1]}?as=Cy")
        assert page.get("/next").status_code == 422
        data = page.get("/?format=json").json()
        assert {k: data[k] for k in ("n", "finished", "begun", "seconds", "found", "page", "pages")} == {
            "n": len(keys), "finished": 1, "begun": 0, "seconds": 210, "found": len(keys), "page": 1, "pages": 2,
        }  # fmt: skip
        assert [len(page.get(f"/?page={p}&format=json").json()["pictures"]) for p in (1, 2)] == [PICTURES_A_PAGE, 2]
        done = page.get("/?show=finished&format=json").json()["pictures"]
        assert [row["key"] for row in done] == [keys[0]]
        assert page.get("/?show=open&format=json").json()["found"] == len(keys) - 1
        text = page.get("/?as=Ann").text
        assert f"1 of {len(keys)} finished" in text
        assert 'href="/?as=Ann&amp;show=all&amp;page=2"' in text


def test_nothing_waits_when_all_is_done(tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path / "a.sqlite")
    store.add_pictures([Picture("k", "k" * 64, "k.png", 4, 3)])
    store.save("k", "objects", "Ann", {"objects": []}, 0, 1)
    store.save("k", "caption", "Ann", {"text": "A thing."}, 0, 1)
    desk = AnnotationDesk(store, StopRule(1))
    assert desk.next_for("Bob") is None
    with TestClient(make_annotation_app(desk), base_url="http://localhost:8000") as page:
        assert page.get("/next?as=Bob&format=json").json() == {"picture": None, "task": None, "page": "/"}
        assert page.get("/next?as=Bob", follow_redirects=False).headers["location"] == "/?as=Bob&nothing=writing"
        assert "There is nothing for you to write now." in page.get("/next?as=Bob").text
        assert "Every picture is finished." in page.get("/?show=open").text


@pytest.mark.slow
def test_whatever_is_asked_gets_an_answer_the_document_knows(page: TestClient, desk: AnnotationDesk) -> None:
    assert len(operations(page)) == 14
    for method, path in operations(page):
        ask_documented(page, method, path, {"key": key_of(desk, 3)}, lambda _case, _answer: None, n=8)


def test_a_comparison_over_http(page: TestClient, desk: AnnotationDesk) -> None:
    key = key_of(desk, 1)
    shown = page.get(f"/compare/{key}?as=Cy&format=json").json()["pair"]
    last = desk.store.versions(key, "caption")[-1].content["text"]
    answers = dict.fromkeys(DIMENSIONS, 2 if shown["a"] == last else -2)
    body = {"author": "Cy", "answers": answers, "token": shown["token"]}
    assert page.post(f"/judge/{key}", json=body).json() == {"kept": True}
    assert page.get("/next?as=Cy&of=comparing&format=json").json() == {"picture": None, "task": None, "page": "/"}
    led = page.get("/next?as=Di&of=comparing", follow_redirects=False)
    assert led.headers["location"] == f"/compare/{key}?as=Di"
    assert "There is nothing for you to compare now." in page.get("/next?as=Cy&of=comparing").text
    figures = page.get("/figures?format=json").json()
    assert next(iter(figures["against"].values()))["mean"]["value"] == 1
    assert (figures["agreement"], figures["judged"], figures["judged_by_authors"]) == ({}, 1, 0)
    other = page.get(f"/compare/{key}?as=Ann&format=json").json()["pair"]
    answers = dict.fromkeys(DIMENSIONS, 1 if other["a"] == last else -1)
    page.post(f"/judge/{key}", json={"author": "Ann", "answers": answers, "token": other["token"]})
    figures = page.get("/figures?format=json").json()
    assert figures["agreement"]["specificity"] == {"alpha": 0.0, "same": 1.0, "pairs": 1, "n": 2}
    assert figures["judged_by_authors"] == 1
    text = page.get("/figures").text
    assert "At least two people compared 1 pair of texts." in text
    assert "1 of 2 comparisons were made by a person who wrote one of the two texts" in text
    assert page.post(f"/judge/{key}", json={**body, "token": "stale"}).status_code == 422
