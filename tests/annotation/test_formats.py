"""Export: all goes out; and what the desk compares and lists."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.errors import DataError, InputError
from seewhy.language.annotation.desk import AnnotationDesk, export, find_pictures, records
from seewhy.language.annotation.records import DIMENSIONS, Picture
from seewhy.language.annotation.rounds import StopRule
from seewhy.language.annotation.store import AnnotationStore
from seewhy.types import Failure

CUP = {"id": "o1", "label": "cup", "box": [0.1, 0.2, 0.55555, 0.9], "description": "röd\nkopp", "attributes": ["shape"]}
DOG = {"id": "o2", "label": "dog", "box": [0.0, 0.0, 1.0, 0.33333], "description": "", "attributes": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for i in range(2):
        Image.fromarray(np.full((30, 40 + i, 3), 90 * i, np.uint8)).save(made / f"{i}.png")
    return made


@pytest.fixture
def store(tmp_path: Path, folder: Path) -> AnnotationStore:
    made = AnnotationStore(tmp_path / "a.sqlite")
    made.add_pictures(p for p in find_pictures(map(str, sorted(folder.iterdir()))) if isinstance(p, Picture))
    key = made.pictures()[0].key
    made.seed(key, "caption", "the model", {"text": "A dog."})
    made.save(key, "objects", "Ann", {"objects": [CUP, DOG]}, 0, 30)
    made.save(key, "caption", "Ann", {"text": "A red cup."}, 0, 60)
    made.save(key, "caption", "Bob", {"text": "A red cup on a table."}, 1, 20)
    desk = AnnotationDesk(made)
    shown = desk.comparison(key, "Cy")
    assert shown is not None
    desk.judge(key, "Cy", dict.fromkeys(DIMENSIONS, 1), shown["token"], 9)
    return made


def test_jsonl_holds_everything(store: AnnotationStore, tmp_path: Path) -> None:
    """Signs that end lines elsewhere too, at which Python's splitlines() breaks."""
    words = "one\u2028two\u2029three\u0085four\x0bfive\x1csix"
    store.save(store.pictures()[1].key, "caption", "Ann", {"text": words}, 0, 1)
    assert export(store, tmp_path / "a.jsonl", StopRule()) == 2
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert rows == list(records(store, StopRule()))
    assert (rows[0]["text"], rows[0]["left_out"], rows[0]["objects"]) == ("A red cup on a table.", ["dog"], [CUP, DOG])
    assert rows[1]["text"] == words
    with pytest.raises(DataError, match=r"must end in \.jsonl, got .*\.xlsx"):
        export(store, tmp_path / "a.xlsx", StopRule())


def test_the_desk_compares_with_texts_from_elsewhere_and_refuses_stale_answers(store: AnnotationStore) -> None:
    key = store.pictures()[0].key
    desk = AnnotationDesk(store)
    assert desk.comparison(store.pictures()[1].key, "Ann") is None
    shown = desk.comparison(key, "Ann")
    assert shown is not None
    assert {shown["a"], shown["b"]} == {"A red cup on a table.", "A dog."}
    store.put_texts("other model", [(key, "Something else.")])
    with pytest.raises(DataError, match="because the texts have changed since"):
        desk.judge(key, "Ann", dict.fromkeys(DIMENSIONS, 0), shown["token"], 1)
    shown = desk.comparison(key, "Ann")
    assert shown is not None
    assert {shown["a"], shown["b"]} == {"A red cup on a table.", "Something else."}
    with pytest.raises(InputError, match="must"):
        desk.judge(key, "Ann", {}, shown["token"], 1)
    assert list(desk.figures()["against"]) == ["seed"]


def test_pictures_are_listed_once_and_the_page_gets_no_file_that_changed(tmp_path: Path, folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "bad.png").write_text("no picture")
    found = list(find_pictures(map(str, sorted(folder.iterdir()))))
    assert [type(f).__name__ for f in found] == ["Picture", "Picture", "Failure"]
    assert list(find_pictures(["caf\udce9.png"])) == [
        Failure("caf\udce9.png", "has a name that is not UTF-8, which the annotation file cannot store; rename it")
    ]
    assert isinstance(found[2], Failure)
    store = AnnotationStore(tmp_path / "x.sqlite")
    store.add_pictures(p for p in found if isinstance(p, Picture))
    desk = AnnotationDesk(store)
    key = store.pictures()[1].key
    assert desk.jpeg(key)[:2] == b"\xff\xd8"
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(InputError, match="changed since"):
        desk.jpeg(key)


@pytest.mark.slow
def test_the_command_exports(command: list[str], folder: Path, tmp_path: Path) -> None:
    base = [*command, "app", "--data", str(folder), "--annotate", str(tmp_path / "c.sqlite")]
    out = subprocess.run(
        [*base, "--export", str(tmp_path / "c.jsonl"), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == {"file": str(tmp_path / "c.jsonl"), "pictures": 2}
    wrong = subprocess.run([*base, "--export", str(tmp_path / "c.doc")], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "must end in .jsonl, got " in wrong.stderr
