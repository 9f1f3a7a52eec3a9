"""Names of classes in sentences: one article each."""

from __future__ import annotations

import pytest

import seewhy
from seewhy.classifiers.unfitted import ZeroShot
from seewhy.encoders.names import filled
from tiny_words import tiny_pair


@pytest.mark.parametrize(
    ("template", "name", "said"),
    [
        ("a photo of a {}.", "dog", "a photo of a dog."),
        ("a photo of a {}.", "A dog", "a photo of A dog."),
        ("An {} in {}", " an owl", "an owl in an owl"),
        ("a photo of many {}", "the apes", "a photo of many the apes"),
        ("panda {}", "a cub", "panda a cub"),
        ("a {}", "anteater", "a anteater"),
        ("a {}", "a {}", "a {}"),
        ("{0} a {}", "{}", "{0} a {}"),
        ("a plain sentence", "a dog", "a plain sentence"),
    ],
)
def test_a_name_brings_its_article(template: str, name: str, said: str) -> None:
    assert filled(template, name) == said


def test_classes_with_articles_are_read_as_people_say_them() -> None:
    assert tiny_pair().text.templates == ("a photo of a {}.",)
    named = ZeroShot().build(tiny_pair(), ["a dog", "the sky", "cat"])
    assert named.words is not None
    assert named.words.texts == ("a photo of a dog.", "a photo of the sky.", "a photo of a cat.")
    assert seewhy.encoder("new:resnet", engine="torch").text.templates == tiny_pair().text.templates
