"""What a card says of words that are worth nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from seewhy.classifiers.unfitted import Pretrained
from seewhy.descriptions import Descriptions
from seewhy.evidence.words import _judge
from seewhy.explanation.base import Words
from tiny import CLASSES, picture, tiny_cnn


@pytest.mark.parametrize(("accuracy", "said"), [(0.25, True), (0.26, False)])
def test_words_no_better_than_chance_are_said_to_be(accuracy: float, said: bool) -> None:
    model = Pretrained().build(tiny_cnn(), Descriptions({c: (f"{c} one",) for c in CLASSES}))
    told = replace(model, words_accuracy=accuracy, words_accuracy_on="80 pictures")
    words = told.explain(picture("rust", 1), measure=False).words
    assert isinstance(words, Words)
    assert ("may be no better than chance" in words.verdict.sentence) == said
    assert not said or words.verdict.level == "do not rely"


def test_half_of_two_classes_is_chance() -> None:
    model = Pretrained().build(
        tiny_cnn(classifier=torch.nn.Linear(8, 2)), Descriptions({c: (f"{c} one",) for c in CLASSES[:2]})
    )
    told = replace(model, words_accuracy=0.5, words_accuracy_on="80 pictures")
    words = told.explain(picture("rust", 1), measure=False).words
    assert isinstance(words, Words)
    assert words.verdict.level == "do not rely"


@pytest.mark.parametrize(("labels", "lacking"), [([0, 0], True), ([0, 1], False)])
def test_pictures_of_two_classes_are_not_said_to_be_missing_where_they_are_not(
    labels: list[int], lacking: bool
) -> None:
    """Concepts written for no class have no wrong words beside them, however many pictures there are."""
    held = SimpleNamespace(labels=torch.tensor(labels))
    stand_in = SimpleNamespace(
        classes=("red", "green"), words_accuracy=0.85, words_accuracy_on="20 held-out pictures", held_out=held
    )
    found = _judge(cast(Any, stand_in), [], 0, 0, 1, None)
    assert found.level == "not measured"
    assert ("no held-out pictures of two classes" in found.sentence) == lacking
