"""A check or a database that names other files of the machine makes the page show none of them."""

from __future__ import annotations

import base64
import io
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from starlette.testclient import TestClient

from seewhy.cli.check import note_links
from seewhy.language.annotation.desk import AnnotationDesk, find_pictures
from seewhy.language.annotation.labels import Corrections, LabelDecisions, LabelledData
from seewhy.language.annotation.records import Picture
from seewhy.language.annotation.store import AnnotationStore
from seewhy.pictures.samples import Sample, load_samples
from seewhy.service.app.annotate import make_annotation_app
from seewhy.service.app.deciding import make_check_app
from seewhy.studies.inspection.check import Check, read_check, small_picture
from tiny import class_folders, tiny_cnn

RED = np.array((250, 10, 10))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture of the machine that nobody gave to the page: nearly red, as no other is."""
    (tmp_path / "home").mkdir()
    Image.new("RGB", (64, 64), tuple(RED)).save(tmp_path / "home" / "private.png")
    return tmp_path / "home" / "private.png"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    with closing(AnnotationStore(tmp_path / "decisions.sqlite")) as opened:
        yield opened


def shown(page: str) -> list[bool]:
    """For each picture of a page, whether it is the red one."""
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in found]
    return [bool(np.abs(np.asarray(one).mean((0, 1)) - RED).max() < 20) for one in pictures]


def served(check: dict[str, Any], photos: Path, store: AnnotationStore, **more: Any) -> TestClient:
    items = load_samples(photos).items
    corrections = Corrections(LabelledData(photos, items), LabelDecisions(store, ("moss", "rust", "sky")))
    return TestClient(make_check_app(check, corrections, small_picture, **more), base_url="http://localhost:8000")


@pytest.mark.parametrize("field", ["image", "with", "own", "other"])
@pytest.mark.parametrize("way", ["as it is", "through the data", "by a link"])
def test_a_check_that_names_another_file(
    field: str, way: str, secret: Path, tmp_path: Path, store: AnnotationStore
) -> None:
    photos = class_folders(tmp_path / "photos", 4)
    first, second = sorted(photos.rglob("*.png"))[:2]
    name = str(secret)
    if way == "through the data":
        name = str(photos / "moss" / ".." / ".." / "home" / secret.name)
    elif way == "by a link":
        (tmp_path / "link.png").symlink_to(secret)
        name = str(tmp_path / "link.png")
    items = load_samples(photos).items
    Check().run(tiny_cnn(), load_samples(photos)).save(tmp_path / "check.json")
    check = read_check(tmp_path, photos, items)
    key = next(p for p in find_pictures([str(first)]) if isinstance(p, Picture)).key
    row = {"kind": "label", "image": str(first), "label": "moss", "key": key, "why": "w", "figures": "", "doubt": 1.0}
    row |= {"proposed": "sky", "with": [str(second)], "splits": [], "like": {"own": [], "other": []}}
    honest = served({**check, "findings": [row]}, photos, store).get("/").text
    assert shown(honest) == [False, False]
    if field in ("own", "other"):
        row["like"] = {**row["like"], field: [{"image": name, "label": "moss", "cosine": 0.9}]}  # type: ignore[dict-item]
    else:
        row[field] = [name] if field == "with" else name
    page = served({**check, "findings": [row]}, photos, store)
    assert shown(page.get("/").text) == ([False] if field in ("image", "with") else [False, False])
    body = {"author": "Ann", "decision": "kept", "given": "moss", "base": 0}
    assert page.post(f"/decide/{key}", json=body).status_code == (422 if field == "image" else 200)


def test_a_changed_picture_and_one_to_compare_with(secret: Path, tmp_path: Path, store: AnnotationStore) -> None:
    photos = class_folders(tmp_path / "photos", 4)
    first = sorted(photos.rglob("*.png"))[0]
    found = Check().run(tiny_cnn(), load_samples(photos)).to_json()
    key = next(p for p in find_pictures([str(first)]) if isinstance(p, Picture)).key
    row = {"kind": "copy", "image": str(first), "label": "moss", "key": key, "why": "w", "figures": "", "doubt": 1.0}
    row |= {"proposed": None, "with": [str(secret)], "splits": [], "like": {"own": [], "other": []}}
    check = {**found, "findings": [row]}
    assert shown(served(check, photos, store, others=[Sample(str(secret))]).get("/").text) == [False, True]
    first.unlink()
    first.symlink_to(secret)
    assert shown(served(check, photos, store).get("/").text) == []


@pytest.mark.parametrize("digest", ["of the file", "of the picture"])
def test_a_database_of_annotations_that_names_another_file(digest: str, secret: Path, tmp_path: Path) -> None:
    photos, path = class_folders(tmp_path / "photos", 1), tmp_path / "texts.sqlite"
    given = [p for p in find_pictures(map(str, sorted(photos.rglob("*.png")))) if isinstance(p, Picture)]
    private = next(p for p in find_pictures([str(secret)]) if isinstance(p, Picture))
    with closing(AnnotationStore(path)) as store:
        store.add_pictures([*given, private])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE pictures SET name = ? WHERE key = ?", (str(secret), given[0].key))
        if digest == "of the file":
            db.execute("UPDATE pictures SET digest = ? WHERE key = ?", (private.digest, given[0].key))
        db.commit()
    proposed: list[str] = []
    with closing(AnnotationStore(path)) as store:
        store.add_pictures(given)
        page = TestClient(make_annotation_app(AnnotationDesk(store, seeder=proposed.append)))  # type: ignore[arg-type]
        page.base_url = "http://localhost:8000"
        answers = [page.get(f"/picture/{key}") for key in (private.key, given[0].key, given[1].key)]
        assert [a.status_code for a in answers] == [422, 422 if digest == "of the file" else 200, 200]
        assert "is not among the pictures given" in answers[0].text
        assert page.get(f"/caption/{private.key}?as=Ann").status_code == 422
    assert proposed == []


def test_links_to_other_folders_are_named(secret: Path, tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", 1, ["moss"])
    inside = next(photos.rglob("*.png"))
    (photos / "moss" / "inside.png").symlink_to(inside)
    notes: list[str] = []
    session: Any = SimpleNamespace(terminal=SimpleNamespace(note=notes.append))
    note_links(session, load_samples(photos).items, photos, None)
    assert notes == []
    (photos / "moss" / "outside.png").symlink_to(secret)
    note_links(session, load_samples(photos).items, photos, None)
    assert notes == [
        f"1 of the pictures are links to files in other folders, such as {photos / 'moss' / 'outside.png'}. Everybody "
        "who can open the page can see them."
    ]
