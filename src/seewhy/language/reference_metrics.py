"""Figures of texts beside reference texts (BLEU, METEOR, CIDEr), and how many words of each class they have.

All of it is computed by libraries of the extra ``text-metrics``; here are only the calls, and one way of cutting words.
"""

from __future__ import annotations

import importlib
import string
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..errors import InputError, MissingExtraError

WORD_CLASSES = {
    "NN": "nouns",
    "VB": "verbs",
    "JJ": "adjectives",
    "RB": "adverbs",
    "CD": "numbers",
    "IN": "prepositions",
}
"""First two letters of a Penn Treebank tag → what is counted."""


class _NoSynonyms:
    """Stands for WordNet, whose data no package brings: METEOR then matches words and their stems alone."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("text-metrics", f"measuring texts needs {name.partition('.')[0]}") from error


def words_of(text: str) -> list[str]:
    """Lower-case words by the Penn Treebank's rules, punctuation dropped, as the COCO caption scorer has them.

    Raises:
        MissingExtraError: nltk is not installed.
    """
    tokenizer = _library("nltk.tokenize").TreebankWordTokenizer()
    marks = set(string.punctuation) | {"''", "``", "...", "--"}
    return [word for word in tokenizer.tokenize(text.lower()) if word not in marks]


def reference_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """How near texts are to what people wrote of the same pictures.

    BLEU-1 to BLEU-4 (Papineni et al. 2002) and CIDEr (Vedantam et al. 2015) are those of the COCO caption scorer,
    METEOR (Banerjee & Lavie 2005) is nltk's, with stems but without synonyms. CIDEr weighs phrases by how rare they are
    among the references given, so it depends on all pictures together, and is 0 for one picture alone.

    Args:
        candidates: one text a picture.
        references: of each picture, at least one text.

    Returns:
        ``bleu_1`` … ``bleu_4`` and ``meteor`` in 0…1, ``cider`` in 0…10.

    Raises:
        InputError: no candidates, not as many lists of references, or one of them empty.
        MissingExtraError: the extra ``text-metrics`` is not installed.

    Example:
        >>> found = reference_scores(["a cat sits", "two dogs run"], [["a cat sits"], ["two dogs run"]])
        >>> round(found["bleu_2"], 3), round(found["cider"], 3)
        (1.0, 7.5)
    """
    if not candidates or len(candidates) != len(references) or not all(references):
        raise InputError(
            f"{len(candidates)} texts and {len(references)} lists of references were given. As many lists as texts, "
            "each with at least one reference, were expected. Give the references of every text."
        )
    bleu = _library("pycocoevalcap.bleu.bleu").Bleu(4)
    cider = _library("pycocoevalcap.cider.cider").Cider()
    meteor = _library("nltk.translate.meteor_score").meteor_score
    cut = [words_of(text) for text in candidates]
    known = [[words_of(text) for text in texts] for texts in references]
    ours = {i: [" ".join(words)] for i, words in enumerate(cut)}
    theirs = {i: [" ".join(words) for words in texts] for i, texts in enumerate(known)}
    scores = bleu.compute_score(theirs, ours, verbose=0)[0]
    means = [meteor(texts, words, wordnet=_NoSynonyms()) for texts, words in zip(known, cut, strict=True)]
    return {
        **{f"bleu_{n}": float(score) for n, score in enumerate(scores, 1)},
        "meteor": sum(means) / len(means),
        "cider": float(cider.compute_score(theirs, ours)[0]),
    }


def word_classes(text: str) -> dict[str, int]:
    """How many nouns, verbs, adjectives, adverbs, numbers and prepositions an English text has, by TextBlob's tagger.

    Raises:
        MissingExtraError: textblob is not installed.

    Example:
        >>> word_classes("A small red cup stands on the old table.")["adjectives"]
        3
    """
    tagger = _library("textblob.taggers").PatternTagger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # textblob leaves its word list open
        tags = tagger.tag(text, tokenize=True)
    found = Counter(WORD_CLASSES.get(tag[:2]) for _word, tag in tags)
    return {name: found[name] for name in WORD_CLASSES.values()}
