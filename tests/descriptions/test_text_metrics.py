"""Readability by the published formulas on texts counted by hand, and object precision and recall."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from seewhy.errors import InputError
from seewhy.language.textualize import mentions

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

from text_metrics import readability, score_objects, syllables

TEXT = "The big dog ran. A beautiful animal slept on it!"
"""10 words, 2 sentences, 37 letters; syllables 1 1 1 1 · 1 3 3 1 1 1 = 14; two hard words."""


def test_formulas_in_closed_form() -> None:
    assert readability(TEXT) == pytest.approx(
        {
            "words": 10,
            "sentences": 2,
            "ari": 4.71 * 3.7 + 0.5 * 5 - 21.43,
            "flesch_kincaid": 0.39 * 5 + 11.8 * 1.4 - 15.59,
            "smog": 1.0430 * math.sqrt(30) + 3.1291,
            "coleman_liau": 0.0588 * 370 - 0.296 * 20 - 15.8,
            "gunning_fog": 0.4 * (5 + 20),
        },
        abs=1e-4,
    )


def test_words_and_sentences_that_are_hard_to_count() -> None:
    ends = {"No end": 1, "A red cup. It has a handle": 2, "A red cup. It has a handle.": 2}
    for text, n in {**ends, "It costs 3.50 euros. Really?! Yes...": 3}.items():
        assert readability(text)["sentences"] == n
    assert readability("a well-made dog's bed")["words"] == 4
    assert [syllables(w) for w in ("a", "idea", "queue", "side", "little")] == [1, 2, 1, 1, 2]
    with pytest.raises(InputError, match="no words"):
        readability(" … ")


def test_object_precision_and_recall_perfect_worst_and_between() -> None:
    there, vocabulary = ["cup", "dog"], ["cup", "dog", "cat", "car"]
    perfect = score_objects("A cup and two dogs.", there, vocabulary)
    assert (perfect.precision, perfect.recall) == (1, 1)
    worst = score_objects("A cat in a car.", there, vocabulary)
    assert (worst.precision, worst.recall, worst.missed) == (0, 0, ("cup", "dog"))
    half = score_objects("A cup and a cat.", there, vocabulary)
    assert (half.precision, half.recall) == (0.5, 0.5)
    silent = score_objects("Nothing.", there, vocabulary)
    assert (silent.precision, silent.recall) == (1, 0)


def test_a_phrase_is_whole_words() -> None:
    assert mentions("a cupboard", "cup") is False
    assert mentions("RED   cups", "red cup")
    assert mentions("a milk_carton", "carton") is False
    assert mentions("a milk carton", "milk_carton")
    assert mentions("anything", "") is False
    assert mentions("a (b)", "(b") is True
    assert all(mentions("Two boys play with toys, keys and berries.", one) for one in ("boy", "toy", "key", "berry"))
    assert mentions("a boyfriend", "boy") is False
