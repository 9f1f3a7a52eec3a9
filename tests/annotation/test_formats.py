"""Export and import: what goes out comes back, and the command does both."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.errors import DataError, InputError
from seewhy.language.annotation.desk import AnnotationDesk, find_pictures
from seewhy.language.annotation.formats import bring_in, export, records
from seewhy.language.annotation.records import DIMENSIONS, Picture
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


def copied(store: AnnotationStore, path: Path) -> AnnotationStore:
    fresh = AnnotationStore(path)
    fresh.add_pictures(store.pictures())
    return fresh


def test_jsonl_brings_everything_back(store: AnnotationStore, tmp_path: Path) -> None:
    assert export(store, tmp_path / "a.jsonl") == 2
    fresh = copied(store, tmp_path / "b.sqlite")
    took, notes = bring_in(fresh, tmp_path / "a.jsonl")
    assert took == 1
    assert list(records(fresh)) == list(records(store))
    assert "has these or other annotations already" in notes[0]
    first = next(records(store))
    assert (first["text"], first["left_out"], first["objects"]) == ("A red cup on a table.", ["dog"], [CUP, DOG])
    # Once more, into pictures that have annotations: nothing is taken twice.
    assert bring_in(fresh, tmp_path / "a.jsonl")[0] == 0


def test_signs_that_end_lines_elsewhere_come_back(store: AnnotationStore, tmp_path: Path) -> None:
    """Python's splitlines() breaks at them, so a text pasted from the web would have made the export unreadable."""
    key = store.pictures()[1].key
    words = "one\u2028two\u2029three\u0085four\x0bfive\x1csix"
    store.save(key, "caption", "Ann", {"text": words}, 0, 1)
    export(store, tmp_path / "a.jsonl")
    fresh = copied(store, tmp_path / "b.sqlite")
    assert bring_in(fresh, tmp_path / "a.jsonl")[0] == 2
    assert list(records(fresh)) == list(records(store))


VERSION = {
    "task": "caption", "number": 1, "author": "Ann", "kind": "round", "content": {"text": "x"}, "seconds": 1.0,
    "base": 0, "made": "2026-01-01T00:00:00.000+00:00",
}  # fmt: skip
JUDGEMENT = {"author": "Cy", "first": "a", "second": "b", "answers": dict.fromkeys(DIMENSIONS, 1), "seconds": 2}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"versions": 3}, "no list of objects"),
        ({"versions": [3]}, "no list of objects"),
        ({"versions": [{**VERSION, "number": "1"}]}, "has the number '1'"),
        ({"versions": [{**VERSION, "number": -1}]}, "has the number -1"),
        ({"versions": [{**VERSION, "base": True}]}, "the base True"),
        ({"versions": [{**VERSION, "kind": "poem"}]}, "the kind 'poem'"),
        ({"versions": [{**VERSION, "made": 3}]}, "the time 3"),
        ({"versions": [{**VERSION, "seconds": float("nan")}]}, "The time nan"),
        ({"versions": [{**VERSION, "author": ""}]}, "Type a name"),
        ({"versions": [{**VERSION, "content": {"text": 3}}]}, "The text is a int"),
        ({"versions": [VERSION, VERSION]}, "the same number"),
        ({"versions": [VERSION], "judgements": [{}]}, "does not name two texts"),
        ({"versions": [VERSION], "judgements": [{**JUDGEMENT, "answers": {}}]}, "One each was expected"),
        ({"versions": [VERSION], "judgements": 3}, "has no versions"),
        ({"annotations": [{}]}, "has no versions"),
    ],
)
def test_a_record_that_is_wrong_is_named_and_nothing_of_the_file_is_taken(
    store: AnnotationStore, tmp_path: Path, record: dict[str, Any], says: str
) -> None:
    fresh = copied(store, tmp_path / "b.sqlite")
    first, second = (p.digest for p in fresh.pictures())
    good = {"digest": first, "versions": [VERSION], "judgements": [JUDGEMENT]}
    bad = {"digest": second, "data": {"digest": second}, **record}
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(good)}\n\n{json.dumps(bad)}\n")
    with pytest.raises(DataError, match=r"x\.jsonl, picture 2") as error:
        bring_in(fresh, tmp_path / "x.jsonl")
    assert says in str(error.value)
    assert fresh.histories() == {}
    (tmp_path / "x.jsonl").write_text(json.dumps(good))
    assert bring_in(fresh, tmp_path / "x.jsonl")[0] == 1


def test_other_files_are_refused(store: AnnotationStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'\.xlsx'"):
        export(store, tmp_path / "a.xlsx")
    for name, text in (("a.jsonl", "{"), ("b.jsonl", "[1]"), ("d.jsonl", '{"digest": "D"}')):
        (tmp_path / name).write_text(text.replace("D", store.pictures()[1].digest))
        with pytest.raises(DataError):
            bring_in(store, tmp_path / name)


def test_the_desk_compares_with_texts_from_elsewhere_and_refuses_stale_answers(store: AnnotationStore) -> None:
    key = store.pictures()[0].key
    desk = AnnotationDesk(store)
    assert desk.comparison(store.pictures()[1].key, "Ann") is None
    shown = desk.comparison(key, "Ann")
    assert shown is not None
    assert {shown["a"], shown["b"]} == {"A red cup on a table.", "A dog."}
    store.put_texts("other model", [(key, "Something else.")])
    with pytest.raises(DataError, match="changed meanwhile"):
        desk.judge(key, "Ann", dict.fromkeys(DIMENSIONS, 0), shown["token"], 1)
    shown = desk.comparison(key, "Ann")
    assert shown is not None
    assert {shown["a"], shown["b"]} == {"A red cup on a table.", "Something else."}
    with pytest.raises(InputError, match="expected"):
        desk.judge(key, "Ann", {}, shown["token"], 1)
    assert list(desk.figures()["against"]) == ["seed"]


def test_pictures_are_listed_once_and_the_page_gets_no_file_that_changed(tmp_path: Path, folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "bad.png").write_text("no picture")
    found = list(find_pictures(map(str, sorted(folder.iterdir()))))
    assert [type(f).__name__ for f in found] == ["Picture", "Picture", "Failure"]
    assert list(find_pictures(["caf\udce9.png"])) == [
        Failure("caf\udce9.png", "has a name that is not UTF-8, which the file of annotations cannot hold; rename it")
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
def test_the_command_exports_and_imports(command: list[str], folder: Path, tmp_path: Path) -> None:
    base = [*command, "annotate", str(folder), "-o", str(tmp_path / "c.sqlite")]
    out = subprocess.run(
        [*base, "--export", str(tmp_path / "c.jsonl"), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == {"file": str(tmp_path / "c.jsonl"), "pictures": 2}
    wrong = subprocess.run([*base, "--export", str(tmp_path / "c.doc")], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "'.doc'" in wrong.stderr
