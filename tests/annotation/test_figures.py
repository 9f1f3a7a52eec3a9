"""Figures on rounds, and agreement against the published example and closed forms."""

from __future__ import annotations

from typing import Any

import pytest

from seewhy.language.annotation.records import DIMENSIONS, Version
from seewhy.language.annotation.rounds import agreement, by_authors_of_a_text, by_round, krippendorff_alpha

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", part D: four observers, twelve units.
PUBLISHED = ("12332141 2   ", "12332241 25 3", " 3332342 251 ", "12332441 251 ")


def test_alpha_is_the_published_one() -> None:
    rows = [row[:8] + row[9:] for row in PUBLISHED]
    units = [[int(v) for v in unit if v != " "] for unit in zip(*rows, strict=True)]
    assert len(units) == 12
    assert krippendorff_alpha(units) == pytest.approx(0.849, abs=5e-4)


def test_alpha_in_closed_forms() -> None:
    assert krippendorff_alpha([[2, 2, 2], [-1, -1]]) == 1
    assert krippendorff_alpha([[0, 1], [0, 1], [1, 0], [0, 1]]) == pytest.approx(1 - 7 * 1 / 4)
    assert krippendorff_alpha([[1], [2], [3]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([]) is None
    units = [[0, 1, 2], [2, 1], [0, 0]]
    assert krippendorff_alpha([[3 * v + 5 for v in unit] for unit in units]) == pytest.approx(krippendorff_alpha(units))


def judgement(author: str, score: int, picture: str = "k", first: str = "round 2 by Bob") -> dict[str, Any]:
    answers = dict.fromkeys(DIMENSIONS, score)
    return {"author": author, "picture": picture, "first": first, "second": "round 1 by Ann", "answers": answers}


def test_agreement_is_over_pairs_that_several_compared() -> None:
    assert agreement([judgement("Cy", 2), judgement("Di", 2, "other")]) == {}
    rows = [judgement("Cy", 2), judgement("Di", 1), judgement("Ed", -1), judgement("Cy", 0, "other")]
    found = agreement(rows)["hallucination"]
    assert (found["pairs"], found["n"]) == (1, 3)
    assert found["same"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["alpha"] == pytest.approx(0)
    both = agreement([judgement(who, score, p) for p, score in (("a", 2), ("b", -2)) for who in ("Cy", "Di")])
    assert {a["alpha"] for a in both.values()} == {1.0}


def test_who_judges_a_text_of_their_own() -> None:
    rows = [judgement("Ann", 1), judgement("Bob", 1), judgement("Bo", 1), judgement("Cy", 1, first="seed by the model")]
    assert by_authors_of_a_text(rows) == 2


def version(number: int, words: str, seconds: float, kind: str = "round") -> Version:
    base = None if kind == "seed" else number - 1
    return Version("caption", number, "Ann", kind, {"text": words}, seconds, base, "2026-01-01T00:00:00.000+00:00")


def test_rounds_are_means_over_pictures() -> None:
    one = [version(0, "a b", 0, "seed"), version(1, "a b c d", 60), version(2, "a b c d", 20)]
    other = [version(1, "x y", 40)]
    first, second = by_round([one, other, []])
    assert first == {"round": 1, "n": 2, "words": 3, "seconds": 50, "edited": 0.75}
    assert second == {"round": 2, "n": 1, "words": 4, "seconds": 20, "edited": 0}
