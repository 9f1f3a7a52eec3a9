"""Files and requests with as many names as fit in: each is checked in one pass, and few are compared by spelling."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seewhy.classifiers.base import check_names
from seewhy.dense.regions import class_names
from seewhy.errors import DataError, UnknownNameError
from seewhy.pictures.boxes.formats import COCO, YOLO
from seewhy.pictures.pairs import Parts
from seewhy.pictures.pixel_classes import _names
from seewhy.pictures.samples import load_samples
from seewhy.spelling import LONGEST, MOST, nearest
from seewhy.storage.reading import parse_json

N = 60_000
"""In one pass a tenth of a second; where each is sought among all, half a minute or more."""
NAMES = [f"class {i}" for i in range(N)]
TWICE = [*NAMES, NAMES[-1]]


def coco(folder: Path) -> None:
    whole = {"images": [], "annotations": [], "categories": [{"id": i, "name": n} for i, n in enumerate(TWICE)]}
    (folder / "a.json").write_text(json.dumps(whole))
    COCO().read(folder / "a.json", None)


def yolo(folder: Path) -> None:
    (folder / "data.yaml").write_text("names: " + json.dumps(TWICE))
    YOLO().read(folder / "data.yaml", None)


def masks(folder: Path) -> None:
    (folder / "classes.txt").write_text("\n".join(TWICE))
    _names(folder)


def table(folder: Path) -> None:
    (folder / "a.jsonl").write_text(json.dumps(dict.fromkeys(NAMES, 1))[:-1] + f', "{NAMES[-1]}": 2}}\n')
    load_samples(folder / "a.jsonl")


def card(_folder: Path) -> None:
    parse_json(json.dumps(dict.fromkeys(NAMES, 1))[:-1] + f', "{NAMES[-1]}": 2}}')


DOORS: list[Callable[[Path], Any]] = [
    coco,
    yolo,
    masks,
    table,
    card,
    lambda _: check_names(TWICE),
    lambda _: class_names(TWICE),
    lambda _: class_names(TWICE, boxes=True),
]


@pytest.mark.parametrize("door", DOORS)
def test_a_name_that_is_there_twice_is_told_in_one_pass(door: Callable[[Path], Any], tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises((DataError, ValueError), match=NAMES[-1]):
        door(tmp_path)
    assert time.process_time() - start < 20


def test_texts_of_one_picture_are_not_copied_with_each_row() -> None:
    parts = Parts("a table")
    for i in range(3):
        parts.add("a.png", None, [f"text {i}"])
        assert parts.found["a.png"].texts == ()
    assert parts.samples().items[0].texts == ("text 0", "text 1", "text 2")


def test_groups_that_follow_one_another_are_walked_once() -> None:
    class Counted(dict[str, str]):
        n = 0

        def get(self, key: str, default: Any = None) -> Any:
            Counted.n += 1
            return super().get(key, default)

    parts = Parts("a table", same=Counted({str(i): str(i + 1) for i in range(1000)}))
    assert {parts._root(str(i)) for i in range(1000)} == {"1000"}
    assert Counted.n < 20_000


def test_few_names_that_are_short_are_compared_by_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    inner = difflib.get_close_matches

    def count(word: str, known: list[str], **options: Any) -> list[str]:
        compared.append((len(known), max(map(len, [word, *known]))))
        return inner(word, known, **options)

    monkeypatch.setattr(difflib, "get_close_matches", count)
    assert nearest("clas 7" + "x" * 100_000, ["y" * 100_000, *NAMES]) == []
    with pytest.raises(UnknownNameError):
        raise UnknownNameError("model", "z" * 100_000, NAMES)
    assert [(n <= MOST, longest <= LONGEST) for n, longest in compared] == [(True, True)] * 2
    assert nearest("clas 7", NAMES) == ["class 7"]
