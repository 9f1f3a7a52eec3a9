"""Figures on annotations: what a text leaves out, how rounds go on, which text is preferred, and whether people agree.

Net preference is the share of judgements for the first text less that for the second, marginal and substantial alike;
its mean over the dimensions gives the paper's figures. An object counts as named when its label's noun is in the text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import torch

from ...errors import InputError
from ...studies.bootstrap import paired
from .records import DIMENSIONS, BoxedObject, Version
from .rounds import edited, text_of

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SMALL = """
a an and another are as at be been being both but by can each for from has have her his if in into is it its
more most near no not of off on one onto or other out over own same she some such than that the their them then
there these they this those through to too two three under up very was were which while who whose with within
without he we you also about above across after along around before behind below beneath beside between down
during inside outside toward towards upon where when
"""
_SMALL_WORDS = frozenset(_SMALL.split())


def stem(word: str) -> str:
    """A word without a plural's ending, so that *berries* and *berry* meet.

    >>> [stem(w) for w in ("Berries", "boxes", "leaves", "cups", "glass", "bus")]
    ['berry', 'box', 'leaf', 'cup', 'glass', 'bus']
    """
    word = word.casefold()
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ves") and len(word) > 4:
        return word[:-3] + "f"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def naming_words(text: str) -> list[str]:
    """Words that name or qualify something, stemmed, each once, in order."""
    return list(dict.fromkeys(stem(w) for w in _WORD.findall(text) if w.casefold() not in _SMALL_WORDS and len(w) > 1))


def head_of(label: str) -> str:
    """The noun of a label: its last word before *of*, *with*, *in* and the like.

    >>> head_of("two cups of tea"), head_of("Bumble bee"), head_of("")
    ('cup', 'bee', '')
    """
    words = _WORD.findall(label)
    for i, word in enumerate(words):
        if i and word.casefold() in _SMALL_WORDS and word.casefold() not in ("a", "an", "and", "the"):
            words = words[:i]
            break
    return stem(words[-1]) if words else ""


@dataclass(frozen=True)
class Covered:
    """What a text says of one object: whether its head noun is there, which words are not, and the part that is."""

    id: str
    label: str
    named: bool
    missing: tuple[str, ...]
    share: float


def coverage(objects: Sequence[BoxedObject], text: str) -> tuple[Covered, ...]:
    """Every object against the text, in the objects' order."""
    there, rows = set(naming_words(text)), []
    for o in objects:
        words = naming_words(f"{o.label} {o.description}")
        missing = tuple(w for w in words if w not in there)
        head = head_of(o.label) or (words[0] if words else "")
        share = 1 - len(missing) / len(words) if words else 1.0
        rows.append(Covered(o.id, o.label, not head or head in there, missing, round(share, 4)))
    return tuple(rows)


def left_out(objects: Sequence[BoxedObject], text: str) -> tuple[str, ...]:
    """Labels of the objects that the text does not name."""
    return tuple(c.label or "(no label)" for c in coverage(objects, text) if not c.named)


def by_round(histories: Iterable[Sequence[Version]]) -> list[dict[str, Any]]:
    """Means over the pictures that have each round: words of its text, active seconds, part of the words changed."""
    rounds: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for versions in histories:
        by_number = {v.number: text_of(v.content) for v in versions}
        for number, version in enumerate((v for v in versions if v.kind != "seed"), 1):
            after = text_of(version.content)
            before = "" if version.base is None else by_number.get(version.base, "")
            rounds[number].append((len(after.split()), version.seconds, edited(before, after)))
    rows = []
    for number, of_round in sorted(rounds.items()):
        words, seconds, part = map(fmean, zip(*of_round, strict=True))
        means = {"words": round(words, 1), "seconds": round(seconds, 1), "edited": round(part, 4)}
        rows.append({"round": number, "n": len(of_round), **means})
    return rows


def krippendorff_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Krippendorff's alpha for intervals (Krippendorff 2011, *Computing Krippendorff's Alpha-Reliability*, part D).

    ``α = 1 − D_o / D_e`` with ``D_o = (1/n) Σ_u Σ_{i≠j} (v_ui − v_uj)² / (m_u − 1)`` over units ``u`` of ``m_u ≥ 2``
    values, and ``D_e = Σ_{i≠j} (v_i − v_j)² / (n (n − 1))`` over all ``n`` of their values; ``None`` where that is 0.

    >>> krippendorff_alpha([[1, 1], [2, 2]]), krippendorff_alpha([[1, 2], [2, 1]]), krippendorff_alpha([[1, 1]])
    (1.0, -0.5, None)
    """
    usable = [list(unit) for unit in units if len(unit) >= 2]
    everything = [v for unit in usable for v in unit]
    expected = _squares(everything)
    if not expected:
        return None
    observed = sum(_squares(unit) / (len(unit) - 1) for unit in usable)
    return 1 - (len(everything) - 1) * observed / expected


def _squares(values: Sequence[float]) -> float:
    """Squared differences of all ordered pairs, summed: 2 n Σ v² − 2 (Σ v)²."""
    return 2 * (len(values) * sum(v * v for v in values) - sum(values) ** 2)


def agreement(judgements: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How far people agree on each dimension, over the pairs of texts that several compared; empty without such."""
    pairs: dict[tuple[str, str, str], list[Mapping[str, int]]] = defaultdict(list)
    for row in judgements:
        pairs[row["picture"], row["first"], row["second"]].append(row["answers"])
    several = [answers for answers in pairs.values() if len(answers) >= 2]
    rows: dict[str, dict[str, Any]] = {}
    for name in DIMENSIONS if several else ():
        alpha = krippendorff_alpha([[a[name] for a in answers] for answers in several])
        same = fmean(_sign(a[name]) == _sign(b[name]) for answers in several for a, b in combinations(answers, 2))
        counts = {"pairs": len(several), "n": sum(map(len, several))}
        rows[name] = {"alpha": None if alpha is None else round(alpha, 4), "same": round(same, 4), **counts}
    return rows


def _sign(score: int) -> int:
    return (score > 0) - (score < 0)


def by_authors_of_a_text(judgements: Iterable[Mapping[str, Any]]) -> int:
    """How many judgements are by somebody who wrote one of the two texts."""
    return sum(any(row[side].endswith(f" by {row['author']}") for side in ("first", "second")) for row in judgements)


@dataclass(frozen=True)
class Net:
    """A net preference for the first text, −1…1, with its 95 % bootstrap interval over pictures."""

    value: float
    low: float
    high: float
    n: int


def net_preference(
    judgements: Sequence[Mapping[str, int]], pictures: Sequence[str] | None = None, *, n_draws: int = 2000
) -> dict[str, Net]:
    """Net preference for the first text, by dimension and as their ``mean``; judgements of one picture drawn together.

    >>> rows = [dict.fromkeys(DIMENSIONS, s) for s in (2, 1, 0, -1)]
    >>> net_preference(rows)["mean"].value
    0.25
    """
    if not judgements:
        raise InputError("No judgements were given. At least one was expected. Compare some pictures first.")
    owners = list(pictures) if pictures is not None else [str(i) for i in range(len(judgements))]
    place = {owner: i for i, owner in enumerate(dict.fromkeys(owners))}
    sums = torch.zeros(len(place), len(DIMENSIONS) + 1, 2, dtype=torch.double)
    for owner, row in zip(owners, judgements, strict=True):
        signs = torch.tensor([float(_sign(row[d])) for d in DIMENSIONS], dtype=torch.double)
        sums[place[owner], :, 0] += torch.cat([signs, signs.mean(0, keepdim=True)])
        sums[place[owner], :, 1] += 1
    drawn = paired(sums, lambda means: means[..., 0] / means[..., 1], n_draws=n_draws, seed=0)
    return {
        name: Net(float(drawn.values[i]), *drawn.interval(i), len(judgements))
        for i, name in enumerate([*DIMENSIONS, "mean"])
    }
