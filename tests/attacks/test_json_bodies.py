"""JSON that clients send to the pages: a small body takes little memory, and a wrong one is one sentence."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from pydantic import BaseModel, ValidationError
from starlette.testclient import TestClient

from seewhy.language.annotation.desk import AnnotationDesk
from seewhy.language.annotation.records import Picture
from seewhy.language.annotation.store import AnnotationStore
from seewhy.service.app import annotate, base, browse, deciding

KEY = "0" * 16
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("annotated")
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(file := io.BytesIO(), "PNG")
    (folder / "a.png").write_bytes(file.getvalue())
    store = AnnotationStore(folder / "a.sqlite")
    store.add_pictures([Picture(KEY, KEY * 4, str(folder / "a.png"), 4, 3)])
    with TestClient(annotate.make_annotation_app(AnnotationDesk(store)), base_url="http://localhost:8000") as client:
        yield client


def bodies() -> list[tuple[type[BaseModel], str, Any]]:
    """Every field of a request's body that holds any number of entries."""
    models = {
        model
        for module in (annotate, browse, deciding)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, BaseModel) and model is not BaseModel
    }
    fields = ((model, name, field.annotation) for model in models for name, field in model.model_fields.items())
    kept = ((m, name, get_origin(hint)) for m, name, hint in fields if Any not in get_args(hint))
    return sorted(((m, name, kind) for m, name, kind in kept if kind in (list, dict)), key=str)


@pytest.mark.parametrize(("model", "field", "kind"), bodies())
def test_many_wrong_entries_are_not_each_an_error(model: type[BaseModel], field: str, kind: type) -> None:
    """19 MB of ``{}`` among the indices of a selection took 9 GB of errors, and nobody was answered for a minute."""
    entries: Any = [{}] * 100_000 if kind is list else {f"x{i}": {} for i in range(100_000)}
    with pytest.raises(ValidationError) as caught:
        model.model_validate({field: entries})
    assert caught.value.error_count() <= len(model.model_fields)


def test_the_fields_that_hold_many_entries_are_known() -> None:
    assert {(m.__name__, name) for m, name, _ in bodies()} == {
        ("ListBody", "places"), ("ManyBody", "places"), ("ManyBody", "bases"), ("JudgementBody", "answers"),
    }  # fmt: skip


def test_a_large_body_is_refused_before_it_is_parsed(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "parse_json", lambda _: pytest.fail("it was parsed"))
    body = b"[" + b"0," * (base.MOST_JSON_BYTES // 2) + b"0]"
    answer = page.post(f"/draft/{KEY}/caption", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "The JSON is larger than the limit of 4,000,000 bytes. Send several requests.",
    )


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("9" * 4000, "its number 999999999999… is too large"),
        ("9" * 9000, "its number 999999999999… is too large"),
        ("1e999", "its number 1e999 is too large"),
        ("NaN", "it has the number NaN, which JSON does not allow"),
        ("[" * 100_000, "its JSON is nested too deeply"),
        ("0 0", "it is not valid JSON: Expecting ',' delimiter at line 1"),
    ],
    ids=["4000 digits", "9000 digits", "exponent", "nan", "depth", "syntax"],
)
def test_what_json_does_not_allow_is_one_sentence(page: TestClient, number: str, reason: str) -> None:
    one = {"id": "a", "label": "x", "box": [0, 0, 1, 1], "description": "", "attributes": []}
    body = json.dumps({"author": "Ann", "content": {"objects": [one]}, "base": 0})
    body = body.replace("[0, 0, 1, 1]", f"[{number}, 0, 1, 1]")
    answer = page.post(f"/draft/{KEY}/objects", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        f"The JSON cannot be read: {reason}. Correct it and send it again.",
    )


def test_a_body_in_another_encoding_is_refused(page: TestClient) -> None:
    answer = page.post(f"/draft/{KEY}/caption", content=b'{"author": "\xff"}', headers=JSON)
    assert answer.json()["error"] == "The JSON cannot be read: it is not text in UTF-8. Correct it and send it again."
