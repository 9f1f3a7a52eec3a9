"""Figures of a description: readability, the objects it names rightly (CHAIR), and BLEU, METEOR, CIDEr by libraries."""

from __future__ import annotations

import importlib
import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.errors import InputError, MissingExtraError
from seewhy.language.textualize import mentions

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_END = re.compile(r"[.!?]+(?:\s|$)")
_VOWELS = re.compile(r"[aeiouy]+")
WORD_CLASSES = {
    "NN": "nouns",
    "VB": "verbs",
    "JJ": "adjectives",
    "RB": "adverbs",
    "CD": "numbers",
    "IN": "prepositions",
}
"""First two letters of a Penn Treebank tag → what is counted."""


def syllables(word: str) -> int:
    """Vowel groups of an English word, less a silent final e; at least one. A rule of thumb, as everybody's.

    >>> [syllables(w) for w in ("cat", "table", "apple", "make", "beautiful", "the", "rhythm")]
    [1, 2, 2, 1, 3, 1, 1]
    """
    low = word.casefold()
    n = len(_VOWELS.findall(low))
    silent = low.endswith("e") and not low.endswith(("le", "ee", "ye")) and n > 1
    return max(1, n - silent)


def readability(text: str) -> dict[str, float]:
    """Words, sentences, and five grades that are made of them; a word of three syllables or more counts as hard.

    ARI (Senter & Smith 1967) ``4.71·L/W + 0.5·W/S − 21.43``; Flesch-Kincaid (Kincaid et al. 1975) ``0.39·W/S +
    11.8·Y/W − 15.59``; SMOG (McLaughlin 1969) ``1.0430·√(30·H/S) + 3.1291``; Coleman-Liau (1975) ``0.0588·100·L/W −
    0.296·100·S/W − 15.8``; Gunning fog (1952) ``0.4·(W/S + 100·H/W)``.

    Raises:
        InputError: the text has no word.

    Example:
        >>> found = readability("The cat sat on the mat. It was red.")
        >>> found["words"], found["sentences"], round(found["flesch_kincaid"], 2)
        (9, 2, -2.03)
    """
    words = _WORD.findall(text)
    if not words:
        raise InputError("The text has no words. Expected at least one. Give a description.")
    each = [syllables(w) for w in words]
    letters = sum(c.isalnum() for w in words for c in w)
    *_, tail = _END.split(text)
    n, n_sentences = len(words), max(1, len(_END.findall(text)) + bool(_WORD.search(tail)))
    hard = sum(n >= 3 for n in each)
    grades = {
        "ari": 4.71 * letters / n + 0.5 * n / n_sentences - 21.43,
        "flesch_kincaid": 0.39 * n / n_sentences + 11.8 * sum(each) / n - 15.59,
        "smog": 1.0430 * math.sqrt(30 * hard / n_sentences) + 3.1291,
        "coleman_liau": 5.88 * letters / n - 29.6 * n_sentences / n - 15.8,
        "gunning_fog": 0.4 * (n / n_sentences + 100 * hard / n),
    }
    return {"words": n, "sentences": n_sentences, **{name: round(grade, 4) for name, grade in grades.items()}}


@dataclass(frozen=True)
class ObjectScore:
    """Objects a text names against those that are there (CHAIR, Rohrbach et al. 2018, counts hallucinated ones)."""

    right: tuple[str, ...]
    wrong: tuple[str, ...]
    missed: tuple[str, ...]

    @property
    def precision(self) -> float:
        """Part of the named that is there, 0…1; 1 where nothing is named. CHAIR_i is 1 less this."""
        named = len(self.right) + len(self.wrong)
        return len(self.right) / named if named else 1.0

    @property
    def recall(self) -> float:
        """Part of what is there that is named, 0…1; 1 where nothing is there."""
        there = len(self.right) + len(self.missed)
        return len(self.right) / there if there else 1.0


def score_objects(text: str, there: Sequence[str], vocabulary: Iterable[str]) -> ObjectScore:
    """Which objects of a vocabulary, and of those that are there, a text names."""
    named = [v for v in dict.fromkeys([*there, *vocabulary]) if mentions(text, v)]
    right, wrong = (tuple(v for v in named if (v in there) is is_there) for is_there in (True, False))
    return ObjectScore(right, wrong, tuple(v for v in dict.fromkeys(there) if v not in named))


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
    """Lower-case words by the Penn Treebank's rules, punctuation dropped, as the COCO caption scorer has them."""
    tokenizer = _library("nltk.tokenize").TreebankWordTokenizer()
    marks = set(string.punctuation) | {"''", "``", "...", "--"}
    return [word for word in tokenizer.tokenize(text.lower()) if word not in marks]


def reference_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """How near texts are to what people wrote of the same pictures: ``bleu_1`` … ``bleu_4``, ``meteor``, ``cider``.

    BLEU-1 to BLEU-4 (Papineni et al. 2002) and CIDEr (Vedantam et al. 2015, 0…10) are those of the COCO caption scorer,
    METEOR (Banerjee & Lavie 2005) is nltk's, with stems but without synonyms. CIDEr weighs phrases by how rare they are
    among the references given, so it depends on all pictures together, and is 0 for one picture alone.

    Args:
        candidates: one text a picture.
        references: of each picture, at least one text.

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
            f"{len(candidates)} texts and {len(references)} lists of references were given. Expected as many lists as "
            "texts, each with at least one reference. Give the references of every text."
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

    Example:
        >>> word_classes("A small red cup stands on the old table.")["adjectives"]
        3
    """
    tagger = _library("textblob.taggers").PatternTagger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # textblob leaves its word list open
        tags = tagger.tag(text, tokenize=True)
    counts = Counter(WORD_CLASSES.get(tag[:2]) for _word, tag in tags)
    return {name: counts[name] for name in WORD_CLASSES.values()}
