"""JSON that people and other programs write, as nobody should: one error of SeeWhy's, on one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import in_time

from seewhy.descriptions import Descriptions
from seewhy.errors import SeeWhyError
from seewhy.language.matching import read_captions
from seewhy.language.questions import read_pairs
from seewhy.language.textualize import read_drafts
from seewhy.pictures.boxes import load_boxes

READERS: dict[str, Callable[[Path], Any]] = {
    "descriptions.json": Descriptions.read,
    "captions.jsonl": read_captions,
    "pairs.json": read_pairs,
    "drafts.jsonl": read_drafts,
    "boxes.json": load_boxes,
}
TEXTS = {
    "nested lists": "[" * 100_000,
    "nested objects": '{"image":' * 100_000,
    "a number of 5,000 digits": '{"image": ' + "9" * 5000 + "}",
    "half an object": '{"image": ',
    "another value": "5",
    "lists in it": '{"image": [[]], "description": {}}',
    "no text": "\udcff",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", READERS)
def test_it_is_told_in_one_line(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(TEXTS[text], "utf-8", "surrogateescape")
    if name.startswith("drafts") and text == "lists in it":
        return  # any object is one of theirs; what is in it is looked at when it is used
    with in_time(), pytest.raises(SeeWhyError) as caught:
        READERS[name](path)
    assert "\n" not in str(caught.value)
