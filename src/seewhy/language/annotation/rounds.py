"""Rounds: what one annotator changed of another's text, when to stop, and one text out of two from the same base.

Annotators work one after another (section 3.2 of the paper) for a set number of rounds; here they may also stop early.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations, groupby
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ...errors import InputError
from ...studies.bootstrap import paired
from .records import DIMENSIONS, BoxedObject, Content, Version

_WORDS = re.compile(r"\S+\s*|\s+")
_SENTENCES = re.compile(r".+?(?:[.!?][\"')\]]*\s+|\n\s*|$)", re.DOTALL)

MOST_PAIRS = 250_000
"""Of parts of two texts, beyond which parts that come again and again match beside others alone."""


class Change(NamedTuple):
    """A run of words that stayed, went or came: ``kind`` is ``"same"``, ``"removed"`` or ``"added"``."""

    kind: str
    text: str


def changes(before: str, after: str) -> tuple[Change, ...]:
    """How one text became the other, word by word."""
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    found: list[Change] = []
    for kind, i1, i2, j1, j2 in _opcodes(_keys(a), _keys(b)):
        if kind == "equal":
            for old, new in zip(a[i1:i2], b[j1:j2], strict=True):
                if old == new:
                    found.append(Change("same", old))
                else:  # the word stayed, the blank after it did not
                    n = len(old.rstrip())
                    found += [Change("same", old[:n]), Change("removed", old[n:]), Change("added", new[n:])]
        else:
            found += [Change("removed", "".join(a[i1:i2])), Change("added", "".join(b[j1:j2]))]
    kinds = groupby((c for c in found if c.text), lambda c: c.kind)
    return tuple(Change(kind, "".join(c.text for c in run)) for kind, run in kinds)


def edited(before: str, after: str) -> float:
    """Part of the words that were changed: 0 nothing, 1 everything."""
    a, b = before.split(), after.split()
    if not a and not b:
        return 0.0
    codes = _opcodes(a, b)
    n = sum(max(i2 - i1, j2 - j1) for kind, i1, i2, j1, j2 in codes if kind != "equal")
    return min(1.0, n / max(len(a), len(b)))


def text_of(content: Content) -> str:
    """What people read of a task's content: the text, or one line an object."""
    if "text" in content:
        return str(content["text"])
    return "\n".join(f"{o['label']}: {o['description']}" for o in content.get("objects", ()))


@dataclass(frozen=True)
class StopRule:
    """When a text is finished."""

    n_rounds: int = 3
    min_edits: float = 0.05

    def finished(self, versions: Sequence[Version]) -> str | None:
        """Why it is finished, or ``None`` when another round is wanted."""
        people = [v for v in versions if v.kind != "seed"]
        if len(people) >= self.n_rounds:
            return f"{len(people)} rounds are done."
        if len(people) >= 2 and people[-1].author != people[-2].author:
            part = edited(text_of(people[-2].content), text_of(people[-1].content))
            if part < self.min_edits:
                return f"The last round changed {part:.0%} of the words."
        return None


def history(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """Every version with what it changed of the version that it was made from."""
    by_number = {v.number: text_of(v.content) for v in versions}
    rows = []
    for version in versions:
        before = "" if version.base is None else by_number.get(version.base, "")
        after = text_of(version.content)
        figures = {"words": len(after.split()), "edited": round(edited(before, after), 4)}
        rows.append({**vars(version), **figures, "changes": [list(c) for c in changes(before, after)]})
    return rows


def merged(task: str, base: Content, theirs: Content, mine: Content) -> tuple[Content, bool]:
    """One content out of two that were made from the same base, and whether a person must look at it."""
    if task == "objects":
        return _merged_objects(base, theirs, mine)
    text, clash = _merged_text(base.get("text", ""), theirs.get("text", ""), mine.get("text", ""))
    return {"text": text}, clash


def _merged_objects(base: Content, theirs: Content, mine: Content) -> tuple[Content, bool]:
    b, t, m = ({o["id"]: o for o in content.get("objects", ())} for content in (base, theirs, mine))
    rows: list[dict[str, Any] | None] = []
    clash = False
    for key in dict.fromkeys([*t, *m]):
        old, their, my = b.get(key), t.get(key), m.get(key)
        if their == my or my == old:
            rows.append(their)
        elif their == old:
            rows.append(my)
        else:
            clash = True
            n = sum(row is not None for row in rows)
            rows += [their, my and {**my, "id": f"{my['id'][:30]}-{n}b"}]
    return {"objects": [row for row in rows if row is not None]}, clash


def _merged_text(base: str, theirs: str, mine: str) -> tuple[str, bool]:
    """Sentence by sentence: edits of different ones are both made, those of the same one stand one after the other."""
    if theirs == mine or base == mine:
        return theirs, False
    if base == theirs:
        return mine, False
    old = _sentences(base)
    hunks = sorted([*_hunks(old, theirs, "theirs"), *_hunks(old, mine, "mine")])
    out: list[str] = []
    clash, at = False, 0
    while hunks:
        group = [hunks.pop(0)]
        start, stop = group[0].start, group[0].stop
        while hunks and (hunks[0].start < stop or hunks[0][:2] == (start, stop)):
            group.append(hunks.pop(0))
            stop = max(stop, group[-1].stop)
        sides = {h.side for h in group}
        parts = [_applied(old, start, stop, [h for h in group if h.side == side]) for side in ("theirs", "mine")]
        out += old[at:start]
        if sides == {"theirs"}:
            out += parts[0]
        elif sides == {"mine"} or _keys(parts[0]) == _keys(parts[1]):
            out += parts[1]
        else:
            clash = True
            out += [*parts[0], *parts[1]]
        at = stop
    sentences = [*out, *old[at:]]
    spaced = [s if s[-1:].isspace() else s + " " for s in sentences[:-1]]  # none runs into the one before
    return "".join([*spaced, *sentences[-1:]]), clash


class _Hunk(NamedTuple):
    """Sentences ``start`` to ``stop`` of the old text became ``new`` on one side."""

    start: int
    stop: int
    side: str
    new: tuple[str, ...]


def _hunks(old: list[str], text: str, side: str) -> list[_Hunk]:
    new = _sentences(text)
    codes = _opcodes(_keys(old), _keys(new))
    return [_Hunk(i1, i2, side, tuple(new[j1:j2])) for kind, i1, i2, j1, j2 in codes if kind != "equal"]


def _applied(old: list[str], start: int, stop: int, hunks: list[_Hunk]) -> list[str]:
    """One side's sentences in the place of ``old[start:stop]``."""
    out: list[str] = []
    for hunk in hunks:
        out += [*old[start : hunk.start], *hunk.new]
        start = hunk.stop
    return [*out, *old[start:stop]]


def _opcodes(a: list[str], b: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, a, b, autojunk=len(a) * len(b) > MOST_PAIRS).get_opcodes()


def _sentences(text: str) -> list[str]:
    return [s for s in _SENTENCES.findall(text) if s]


def _keys(parts: list[str]) -> list[str]:
    """Words or sentences without the blanks at their ends, which are no change."""
    return [part.rstrip() for part in parts]


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
    """The noun of a label: its last word before *of*, *with*, *in* and the like."""
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
    """Net preference for the first text, by dimension and as ``mean``; judgements of one picture are drawn together."""
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
