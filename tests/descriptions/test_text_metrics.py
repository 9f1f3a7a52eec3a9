"""Readability by the published formulas on texts counted by hand, and object precision and recall."""

from __future__ import annotations

import math

import pytest

from seewhy.errors import InputError
from seewhy.language.text_metrics import (
    ari,
    coleman_liau,
    count,
    flesch_kincaid,
    gunning_fog,
    mentions,
    readability,
    score_objects,
    smog,
    syllables,
)

TEXT = "The big dog ran. A beautiful animal slept on it!"
"""10 words, 2 sentences, 37 letters; syllables 1 1 1 1 · 1 3 3 1 1 1 = 14; two hard words."""


def test_counts_by_hand() -> None:
    c = count(TEXT)
    assert (c.words, c.sentences, c.letters, c.syllables, c.hard_words) == (10, 2, 37, 14, 2)


def test_formulas_in_closed_form() -> None:
    c = count(TEXT)
    assert ari(c) == pytest.approx(4.71 * 3.7 + 0.5 * 5 - 21.43)
    assert flesch_kincaid(c) == pytest.approx(0.39 * 5 + 11.8 * 1.4 - 15.59)
    assert smog(c) == pytest.approx(1.0430 * math.sqrt(30) + 3.1291)
    assert coleman_liau(c) == pytest.approx(0.0588 * 370 - 0.296 * 20 - 15.8)
    assert gunning_fog(c) == pytest.approx(0.4 * (5 + 20))
    assert readability(TEXT)["gunning_fog"] == 10


def test_words_and_sentences_that_are_hard_to_count() -> None:
    assert count("No end").sentences == 1
    assert count("A red cup. It has a handle").sentences == count("A red cup. It has a handle.").sentences == 2
    assert count("It costs 3.50 euros. Really?! Yes...").sentences == 3
    assert count("a well-made dog's bed").words == 4
    assert [syllables(w) for w in ("a", "idea", "queue", "side", "little")] == [1, 2, 1, 1, 2]
    with pytest.raises(InputError, match="no words"):
        count(" … ")


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
