"""The OpenAPI document under test: everything it allows, and more, is asked; nothing may break or answer otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from documented import ask_documented, operations
from seewhy.classifiers.base import Classifier
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings, make_app

pytestmark = pytest.mark.slow
PATHS = (
    ("GET", "/"),
    ("POST", "/look"),
    ("GET", "/card/{id}"),
    ("GET", "/card/{id}/thumbnail"),
    ("GET", "/card/{id}/words"),
    ("GET", "/card/{id}/place"),
    ("POST", "/card/{id}/edit"),
    ("POST", "/card/{id}/reset"),
    ("GET", "/descriptions"),
    ("GET", "/mistakes"),
    ("GET", "/changes"),
    ("GET", "/browse"),
    ("GET", "/rows"),
    ("GET", "/changed"),
    ("GET", "/tiles"),
    ("GET", "/selection.csv"),
    ("POST", "/selection.csv"),
    ("POST", "/decide-many"),
    ("GET", "/refit"),
    ("GET", "/refit/cards/{index}"),
    ("GET", "/heat/{index}"),
    ("POST", "/refit/start"),
    ("GET", "/refit/state"),
    ("GET", "/next"),
    ("POST", "/next/start"),
    ("GET", "/next/state"),
    ("GET", "/map"),
    ("GET", "/points"),
    ("GET", "/column"),
    ("GET", "/sample/{index}"),
    ("GET", "/sample/{index}/thumbnail"),
    ("GET", "/help"),
    ("GET", "/decisions"),
    ("GET", "/history/{key}"),
    ("POST", "/decide/{key}"),
    ("POST", "/undo/{key}"),
    ("GET", "/corrected.csv"),
)


@pytest.fixture(scope="module")
def page(fitted: Classifier, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    samples, kept = load_samples(folders), tmp_path_factory.mktemp("decided")
    corrections = Corrections(LabelledData(folders, samples.items), open_decisions(kept, fitted.classes))
    app = make_app(fitted, Settings(), data=samples, corrections=corrections)
    with TestClient(app, base_url="http://localhost:8000") as client:
        yield client


def test_the_list_above_is_complete(page: TestClient) -> None:
    assert operations(page) == sorted(PATHS)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_whatever_is_asked_gets_an_answer_the_document_knows(
    page: TestClient, sky: bytes, method: str, path: str
) -> None:
    shown = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()["id"]

    def says_so_in_json(case: Any, response: Any) -> None:
        if response.status_code >= 400 and case.query and case.query.get("format") == "json":
            assert set(response.json()) - {"state"} == {"error"}

    ask_documented(page, method, path, {"id": shown}, says_so_in_json)
