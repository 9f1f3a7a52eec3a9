"""The pages' JSON is as its schemas say."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gone_through import looked
from starlette.testclient import TestClient

from schemas import check, keys, named
from seewhy.classifiers.base import Classifier
from seewhy.language.annotation.desk import AnnotationDesk, records
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.language.annotation.records import DIMENSIONS, Picture
from seewhy.language.annotation.rounds import StopRule
from seewhy.language.annotation.store import AnnotationStore
from seewhy.pictures.samples import load_samples
from seewhy.service.app.annotate import make_annotation_app


def whole(name: str, *rows: Any, without: tuple[str, ...] = ()) -> None:
    """All of these are as the schema says, and together have every key it names."""
    check(name, rows)
    assert named(name) - {key for row in rows for key in keys(row)} == set(without)


@pytest.fixture
def page(
    client: Callable[..., TestClient], fitted: Classifier, folders: Path, tmp_path: Path, sky: bytes
) -> TestClient:
    (tmp_path / "moss").mkdir()
    (tmp_path / "moss" / "a.png").write_bytes(sky)
    (tmp_path / "sky").mkdir()
    (tmp_path / "sky" / "b.png").write_bytes(sky + b"x")
    made = client(fitted, data=tmp_path)
    for _ in range(400):
        if made.get("/mistakes?format=json").json()["done"] == 2:
            return made
        time.sleep(0.02)
    raise AssertionError("the pictures were not gone through")


def test_the_apps_pages_are_as_their_schemas_say(page: TestClient, sky: bytes) -> None:
    shown = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()
    card = shown["card"]
    check("app-card", [shown, page.get(f"{card}?format=json").json(), page.get("/sample/0?format=json").json()])
    assert page.get("/?format=json").json()["recent"]
    assert set(page.get(f"{card}/words").json()["maps"][0]) == {"label", "text", "map", "overlay"}
    place = page.get(f"{card}/place?row=0&column=0").json()
    assert set(place) == {"row", "column", "box", "share", "method", "unit", "like"}
    assert set(place["like"][0]) == {"image", "label", "similarity", "channel", "patch"}
    words = {"label": ["moss", "sky"], "texts": ["blue with clouds", "grey"]}
    edited = page.post(f"{card}/edit?format=json", data=words).json()
    assert set(edited) == {"score_is", "before", "after", "classes", "on_data"}
    pairs = page.get("/mistakes?format=json").json()
    one_by_one = page.get("/mistakes?order=surest&format=json").json()
    assert pairs["confusions"][0]["pictures"] == one_by_one["pictures"]
    assert set(one_by_one["pictures"][0]) == {
        "image", "key", "true", "predicted", "score", "probability", "doubt", "card",
    }  # fmt: skip
    assert set(page.get("/descriptions").json()) >= {"moss", "sky"}
    assert page.get("/changes?format=json").json()["changes"]
    assert page.post(f"{card}/reset?format=json").json() == {"card": card}
    whole("app-error", page.get("/card/none?format=json").json())


def test_decisions_have_a_history(client: Callable[..., TestClient], fitted: Classifier, wrong: Path) -> None:
    data = LabelledData(wrong, load_samples(wrong).items)
    page = client(fitted, wrong, Corrections(data, open_decisions(wrong / "decided", fitted.classes)))
    looked(page)
    one = page.get("/mistakes?order=surest&format=json").json()["pictures"][0]
    body = {"author": "Ann", "base": 0, "decision": "changed", "label": "sky", "given": one["true"]}
    decided = page.post(f"/decide/{one['key']}", json=body).json()
    between = page.post(f"/decide/{one['key']}", json=body)
    assert between.status_code == 409
    undone = page.post(f"/undo/{one['key']}", json={"author": "Bo", "base": 1}).json()
    assert set(between.json()) == {"error", "state"}
    assert page.get(f"/history/{one['key']}").json() == [decided, undone]
    assert page.get("/decisions").json() == {one["key"]: undone}


def test_annotations_are_as_their_schema_says(tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path / "a.sqlite")
    store.add_pictures([Picture("k", "k" * 64, "k.png", 4, 3)])
    store.save("k", "objects", "Ann", {"objects": []}, 0, 1)
    for number, text in enumerate(("A thing.", "A small thing.")):
        store.save("k", "caption", "Ann", {"text": text}, number, 1)
    desk = AnnotationDesk(store)
    for who in ("Cy", "Di"):
        shown = desk.comparison("k", who)
        assert shown is not None
        desk.judge("k", who, dict.fromkeys(DIMENSIONS, 1), shown["token"], 1)
    with TestClient(make_annotation_app(desk), base_url="http://localhost:8000") as page:
        assert page.get("/?format=json").json()["pictures"]
        assert set(page.get("/figures?format=json").json()) >= {"rounds", "against", "agreement"}
    check("annotation", records(store, StopRule()))
