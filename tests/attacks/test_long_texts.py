"""Texts of people who write into the page: compared and encoded in bounded time, whatever they repeat."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from seewhy.classifiers.linear.recipe import Linear
from seewhy.descriptions.base import Descriptions
from seewhy.errors import DataError
from seewhy.language.annotation.rounds import changes, edited, merged
from seewhy.pictures.samples import load_samples
from seewhy.service.app.state import MOST_TOGETHER, with_texts
from tiny import CLASSES, class_folders, tiny_cnn


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a " * 10_000, "a " * 9_999 + "b"),
        ("a b " * 5000, "b a " * 5000),
        ("Aa. " * 5000, "Aa. " * 4999 + "Bb. "),
    ],
    ids=["one word", "two words", "one sentence"],
)
def test_texts_of_one_word_over_and_over_are_compared_in_bounded_time(before: str, after: str) -> None:
    """They took the product of their lengths: 40 s each at the 20,000 signs that a text may have."""
    start = time.process_time()
    assert 0 < edited(before, after) <= 1
    parts = changes(before, after)
    assert "".join(p.text for p in parts if p.kind != "removed") == after
    merged("text", {"text": before}, {"text": after}, {"text": after + "c"})
    assert time.process_time() - start < 10


def test_long_texts_of_people_are_still_compared_word_by_word() -> None:
    words = [f"word{i} of the" for i in range(400)]
    before, after = " ".join(words), " ".join([*words[:200], "new", *words[200:]])
    assert [(p.kind, p.text) for p in changes(before, after) if p.kind != "same"] == [("added", "new ")]


def test_an_edit_has_so_many_texts(tmp_path: Path) -> None:
    texts = {label: ["a text"] for label in CLASSES[:3]}
    samples = load_samples(class_folders(tmp_path / "pictures"))
    classifier = Linear(n_crops=0).fit(tiny_cnn(), samples, descriptions=Descriptions.of(texts))
    lines = [str(i) for i in range(MOST_TOGETHER)]
    with pytest.raises(DataError, match=rf"texts, got {MOST_TOGETHER + 1}\. Edit fewer classes at a time\."):
        with_texts(classifier, {CLASSES[0]: lines, CLASSES[1]: ["one"]})
