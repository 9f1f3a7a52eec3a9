"""docs/json.md says of the pages' JSON what the pages give."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from seewhy.annotation.desk import AnnotationDesk
from seewhy.annotation.records import Picture
from seewhy.annotation.side_by_side import DIMENSIONS
from seewhy.annotation.store import AnnotationStore
from seewhy.app.annotate import make_annotation_app
from seewhy.classifiers.base import Classifier

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text("utf-8")


def documented(heading: str, section: str) -> set[str]:
    """Keys of the first table after a line of one section that begins so."""
    found = re.search(rf"^{re.escape(heading)}.*?\n\n(\|.*?)(?:\n\n|\Z)", text_of(section), re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return keys_in(found[1])


def text_of(section: str) -> str:
    return PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]


def keys_in(table: str) -> set[str]:
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def keys(value: Any, deep: set[str], path: str = "") -> Iterator[str]:
    """Keys of a JSON value, two dots deep only where the documentation goes there."""
    for key, inner in value.items():
        here = f"{path}{key}"
        yield here
        rows = inner if isinstance(inner, list) else [inner]
        below = f"{here}[]." if isinstance(inner, list) else f"{here}."
        if any(name.startswith(below) for name in deep):
            for row in rows:
                yield from keys(row, deep, below)


def agree(value: dict[str, Any], heading: str, section: str = "The page") -> None:
    wanted = documented(heading, section)
    assert set(keys(value, wanted)) == wanted


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


def test_the_apps_pages_are_as_documented(page: TestClient, sky: bytes) -> None:
    shown = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()
    card = shown["card"]
    mine = documented("`GET /card/ID`, `POST /look`", "The page")
    assert mine <= set(shown)
    explained = keys_in(text_of("predict")) | keys_in(text_of("explain"))
    assert set(shown) - explained == mine - explained
    agree(page.get("/?format=json").json(), "`GET /`")
    agree(page.get(f"{card}/words").json(), "`GET /card/ID/words`")
    agree(page.get(f"{card}/place?row=0&column=0").json(), "`GET /card/ID/place")
    words = {"label": ["moss", "sky"], "texts": ["blue with clouds", "grey"]}
    agree(page.post(f"{card}/edit?format=json", data=words).json(), "`POST /card/ID/edit`")
    pairs = page.get("/mistakes?format=json").json()
    one_by_one = page.get("/mistakes?order=surest&format=json").json()
    assert pairs["confusions"][0]["pictures"] == one_by_one["pictures"]
    agree({**pairs, "pictures": one_by_one["pictures"]}, "`GET /mistakes")
    changes = page.get("/changes?format=json").json()
    study = {key.partition("[")[0] for key in keys_in(text_of("study edit-words"))}
    assert set(changes) == study - {"model", "notes", "failures"}
    assert documented("`GET /changes`", "The page") == {"flips[].card"}
    assert all("card" in flip for flip in changes["flips"])
    agree(page.post(f"{card}/reset?format=json").json(), "`POST /card/ID/reset`")
    agree(page.get("/help?format=json").json(), "`GET /help`")


def test_the_annotation_pages_are_as_documented(tmp_path: Path) -> None:
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
        agree(page.get("/?format=json").json(), "Its page, `GET /?show=all", "annotate")
        figures = page.get("/figures?format=json").json()
        wanted = documented("`GET /figures`", "annotate")
        assert set(keys(figures, wanted)) - {"rounds"} == wanted
        says = PAGE.split("`GET /figures`")[1].split("\n## ")[0]
        rows = [*figures["rounds"]["caption"], *figures["agreement"].values(), *figures["against"]["round 1"].values()]
        assert {key for row in rows for key in row} <= set(re.findall(r"`(\w+)`", says))
