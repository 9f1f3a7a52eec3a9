"""Figures on a whole project: how rounds go on, and whether those who compare texts agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from .records import Version
from .rounds import edited, text_of
from .side_by_side import DIMENSIONS


@dataclass(frozen=True)
class RoundFigures:
    """Means over the pictures that have a round.

    Attributes:
        number: the first round by people is 1.
        n: pictures.
        words: of the text after it; of objects, of all their labels and descriptions.
        seconds: active time it took.
        edited: part of the words that it changed, 0…1 (:func:`seewhy.language.annotation.rounds.edited`).
    """

    number: int
    n: int
    words: float
    seconds: float
    edited: float

    def to_json(self) -> dict[str, Any]:
        return {
            "round": self.number,
            "n": self.n,
            "words": round(self.words, 1),
            "seconds": round(self.seconds, 1),
            "edited": round(self.edited, 4),
        }


def by_round(histories: Iterable[Sequence[Version]]) -> tuple[RoundFigures, ...]:
    """The paper's question on rounds: do texts grow, and is each round quicker than the last?"""
    found: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for versions in histories:
        by_number = {v.number: text_of(v.content) for v in versions}
        people = [v for v in versions if v.kind != "seed"]
        for number, version in enumerate(people, 1):
            after = text_of(version.content)
            before = by_number.get(version.base, "") if version.base is not None else ""
            found[number].append((len(after.split()), version.seconds, edited(before, after)))
    return tuple(
        RoundFigures(number, len(rows), *(fmean(row[i] for row in rows) for i in range(3)))
        for number, rows in sorted(found.items())
    )


@dataclass(frozen=True)
class Agreement:
    """How far people who compared the same two texts agree on one question.

    Attributes:
        alpha: Krippendorff's, with squared differences between the five points; 1 as one, 0 as chance, below 0 worse.
            ``None`` where nobody's answers differ anywhere, so that chance cannot be told.
        same: part of the pairs of people who prefer the same text, or neither.
        n_pairs: pairs of texts that at least two people compared.
        n: their judgements.
    """

    alpha: float | None
    same: float
    n_pairs: int
    n: int

    def to_json(self) -> dict[str, Any]:
        alpha = None if self.alpha is None else round(self.alpha, 4)
        return {"alpha": alpha, "same": round(self.same, 4), "pairs": self.n_pairs, "n": self.n}


def krippendorff_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Krippendorff's alpha for intervals (Krippendorff 2011, *Computing Krippendorff's Alpha-Reliability*, part D).

    ``α = 1 − D_o / D_e`` with ``D_o = (1/n) Σ_u Σ_{i≠j} (v_ui − v_uj)² / (m_u − 1)`` over units ``u`` of ``m_u ≥ 2``
    values, and ``D_e = Σ_{i≠j} (v_i − v_j)² / (n (n − 1))`` over all ``n`` of their values.

    Example:
        >>> krippendorff_alpha([[1, 1], [2, 2]]), krippendorff_alpha([[1, 2], [2, 1]]), krippendorff_alpha([[1, 1]])
        (1.0, -0.5, None)
    """
    usable = [list(unit) for unit in units if len(unit) >= 2]
    everything = [v for unit in usable for v in unit]
    n, expected = len(everything), _squares(everything)
    if not expected:
        return None
    observed = sum(_squares(unit) / (len(unit) - 1) for unit in usable)
    return 1 - (n - 1) * observed / expected


def _squares(values: Sequence[float]) -> float:
    """Squared differences of all ordered pairs, summed: 2 n Σ v² − 2 (Σ v)²."""
    return 2 * (len(values) * sum(v * v for v in values) - sum(values) ** 2)


def agreement(judgements: Iterable[Mapping[str, Any]]) -> dict[str, Agreement]:
    """Agreement by dimension, over the pairs of texts that several people compared; empty where there are none.

    Args:
        judgements: rows with ``picture``, ``first``, ``second`` and ``answers``, the last of each person on a pair.
    """
    pairs: dict[tuple[str, str, str], list[Mapping[str, int]]] = defaultdict(list)
    for row in judgements:
        pairs[row["picture"], row["first"], row["second"]].append(row["answers"])
    several = [answers for answers in pairs.values() if len(answers) >= 2]
    if not several:
        return {}
    n = sum(map(len, several))
    return {
        name: Agreement(
            krippendorff_alpha([[a[name] for a in answers] for answers in several]),
            fmean(float(_sign(a[name]) == _sign(b[name])) for answers in several for a, b in combinations(answers, 2)),
            len(several),
            n,
        )
        for name in DIMENSIONS
    }


def _sign(score: int) -> int:
    return (score > 0) - (score < 0)


def by_authors_of_a_text(judgements: Iterable[Mapping[str, Any]]) -> int:
    """How many judgements are by somebody who wrote one of the two texts."""
    return sum(any(row[side].endswith(f" by {row['author']}") for side in ("first", "second")) for row in judgements)
