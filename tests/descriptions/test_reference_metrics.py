"""BLEU, METEOR and CIDEr by libraries: closed forms, and one library held against another."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from seewhy.errors import InputError, MissingExtraError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

import text_metrics
from text_metrics import reference_scores, word_classes, words_of

TEXTS = ["A cat sits on the mat.", "Two dogs run across a green field!", "A red cup stands on the table"]
KNOWN = [
    ["The cat sat on a mat.", "A cat is sitting on the mat"],
    ["Dogs run over the grass.", "Two brown dogs run across a field."],
    ["A red cup stands on the table."],
]


def test_words_are_cut_as_the_caption_scorer_cuts_them() -> None:
    """The words that coco-caption's Java tokenizer gives for this sentence (pycocoevalcap 1.2, PTBTokenizer)."""
    said = "The dog's bed isn't blue, really! \"Two\" well-made cups..."
    assert words_of(said) == ["the", "dog", "'s", "bed", "is", "n't", "blue", "really", "two", "well-made", "cups"]


def test_bleu_is_that_of_another_library() -> None:
    bleu = importlib.import_module("nltk.translate.bleu_score")
    known, cut = [[words_of(t) for t in texts] for texts in KNOWN], [words_of(t) for t in TEXTS]
    found = reference_scores(TEXTS, KNOWN)
    for n in range(1, 5):
        expected = bleu.corpus_bleu(known, cut, weights=[1 / n] * n)
        assert found[f"bleu_{n}"] == pytest.approx(expected, abs=1e-6)


def test_meteor_in_closed_form() -> None:
    """Ten ninths of precision's part: F = 10PR / (R + 9P), less half the cube of chunks by matches."""
    found = reference_scores(["red cup dog"], [["dog red cup cat"]])["meteor"]
    precision, recall, chunks, matches = 1.0, 0.75, 2, 3
    f = 10 * precision * recall / (recall + 9 * precision)
    assert found == pytest.approx(f * (1 - 0.5 * (chunks / matches) ** 3))
    assert reference_scores(["cats"], [["cat"]])["meteor"] == pytest.approx(0.5)  # a stem; one chunk of one match
    assert reference_scores(["automobile"], [["car"]])["meteor"] == 0  # no synonyms


def test_cider_in_closed_form() -> None:
    same = ["a cat sits", "two dogs run"]
    assert reference_scores(same, [[t] for t in same])["cider"] == pytest.approx(7.5)  # no phrase of four words
    four = ["a grey cat sits", "two brown dogs run"]
    assert reference_scores(four, [[t] for t in four])["cider"] == pytest.approx(10)
    assert reference_scores(four, [[t] for t in reversed(four)])["cider"] == 0
    assert reference_scores(four[:1], [four[:1]])["cider"] == 0  # nothing is rare where there is one picture


def test_classes_of_words() -> None:
    found = word_classes("Two very small red cups quickly moved from the old table.")
    assert found == {"nouns": 2, "verbs": 1, "adjectives": 3, "adverbs": 2, "numbers": 1, "prepositions": 1}
    assert sum(word_classes("").values()) == 0


@pytest.mark.parametrize(("texts", "known"), [([], []), (["a"], []), (["a"], [[]])])
def test_references_that_do_not_fit(texts: list[str], known: list[list[str]]) -> None:
    with pytest.raises(InputError, match="lists of references were given"):
        reference_scores(texts, known)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(text_metrics.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\[text-metrics\]'"):
        word_classes("a cup")
