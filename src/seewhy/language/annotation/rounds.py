"""Rounds of annotation: changes between versions, the rule for stopping, and merging.

Annotators edit a text one after another for a fixed number of rounds (section 3.2 of the paper). Where we differ: a
text may be finished earlier.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations, groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch

from ...clusters import grouped
from ...studies.bootstrap import paired
from .records import DIMENSIONS, BoxedObject, Content, Version

_WORDS = re.compile(r"\S+\s*|\s+")
_SENTENCES = re.compile(r".+?(?:[.!?][\"')\]]*\s+|\n\s*|$)", re.DOTALL)

MOST_PAIRS = 250_000
"""Largest product of text lengths that is compared without difflib's ``autojunk`` heuristic."""


class Change(NamedTuple):
    """Consecutive words that are ``"same"``, ``"removed"`` or ``"added"``."""

    kind: str
    text: str


def changes(before: str, after: str) -> tuple[Change, ...]:
    """Compute the word-level changes from one text to another."""
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    found: list[Change] = []
    for kind, i1, i2, j1, j2 in _opcodes(_keys(a), _keys(b)):
        if kind == "equal":
            for old, new in zip(a[i1:i2], b[j1:j2], strict=True):
                if old == new:
                    found.append(Change("same", old))
                else:  # the same word, followed by other space
                    n = len(old.rstrip())
                    found += [Change("same", old[:n]), Change("removed", old[n:]), Change("added", new[n:])]
        else:
            found += [Change("removed", "".join(a[i1:i2])), Change("added", "".join(b[j1:j2]))]
    kinds = groupby((c for c in found if c.text), lambda c: c.kind)
    return tuple(Change(kind, "".join(c.text for c in run)) for kind, run in kinds)


def edited(before: str, after: str) -> float:
    """Compute the fraction of words that changed, 0 to 1."""
    a, b = before.split(), after.split()
    if not a and not b:
        return 0.0
    codes = _opcodes(a, b)
    n = sum(max(i2 - i1, j2 - j1) for kind, i1, i2, j1, j2 in codes if kind != "equal")
    return min(1.0, n / max(len(a), len(b)))


def text_of(content: Content) -> str:
    """Return a task's content as text, with one line per object."""
    if "text" in content:
        return str(content["text"])
    return "\n".join(f"{o['label']}: {o['description']}" for o in content.get("objects", ()))


@dataclass(frozen=True)
class StopRule:
    """The rule that decides when a text is finished.

    Args:
        n_rounds: number of rounds, at least 1.
        min_edits: a text is also finished when a second annotator changes a smaller fraction of its words, 0 to 1.
    """

    n_rounds: int = 3
    min_edits: float = 0.05

    def finished(self, versions: Sequence[Version]) -> str | None:
        """Return the reason why the text is finished, or ``None`` if it needs another round."""
        people = [v for v in versions if v.kind != "seed"]
        if len(people) >= self.n_rounds:
            return f"{len(people)} rounds are done."
        if len(people) >= 2 and people[-1].author != people[-2].author:
            part = edited(text_of(people[-2].content), text_of(people[-1].content))
            if part < self.min_edits:
                return f"The last round changed {100 * part:.0f} % of the words."
        return None


def _with_texts(versions: Sequence[Version]) -> Iterator[tuple[Version, str, str]]:
    """Yield each version with the text of the version on which it is based, and with its own text."""
    by_number: dict[int | None, str] = {v.number: text_of(v.content) for v in versions}
    yield from ((v, by_number.get(v.base, ""), by_number[v.number]) for v in versions)


def history(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """Return all versions, each with its changes from the version on which it is based."""
    rows = []
    for version, before, after in _with_texts(versions):
        figures = {"words": len(after.split()), "edited": round(edited(before, after), 4)}
        rows.append({**vars(version), **figures, "changes": [list(c) for c in changes(before, after)]})
    return rows


def merged(task: str, base: Content, theirs: Content, mine: Content) -> tuple[Content, bool]:
    """Merge two versions with the same base, and return whether they conflict."""
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
    """Merge the changes of two texts by sentence."""
    if theirs == mine or base == mine:
        return theirs, False
    if base == theirs:
        return mine, False
    texts = [_sentences(text) for text in (base, theirs, mine)]
    old, (to_theirs, to_mine) = texts[0], (_kept(texts[0], text) for text in texts[1:])
    both_kept = [[i, to_theirs[i], to_mine[i]] for i in sorted(to_theirs.keys() & to_mine.keys())]
    out: list[str] = []
    clash, starts = False, [0, 0, 0]
    for ends in [*both_kept, list(map(len, texts))]:
        was, their, my = (text[start:end] for text, start, end in zip(texts, starts, ends, strict=True))
        n = len(was)
        if _keys(their) == _keys(my):
            out += my
        elif (was or not my) and _keys(my[:n]) == _keys(was):
            out += [*their, *my[n:]]
        elif (was or not their) and _keys(their[:n]) == _keys(was):
            out += [*my, *their[n:]]
        else:
            clash = True
            out += [*their, *my]
        out += old[ends[0] : ends[0] + 1]
        starts = [end + 1 for end in ends]
    spaced = [s if s[-1:].isspace() else s + " " for s in out[:-1]]  # a space between sentences
    return "".join([*spaced, *out[-1:]]), clash


def _kept(old: list[str], new: list[str]) -> dict[int, int]:
    """Map the positions of unchanged sentences from the old text to the new text."""
    codes = _opcodes(_keys(old), _keys(new))
    return {i: i - i1 + j1 for kind, i1, i2, j1, _ in codes if kind == "equal" for i in range(i1, i2)}


def _opcodes(a: list[str], b: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, a, b, autojunk=len(a) * len(b) > MOST_PAIRS).get_opcodes()


def _sentences(text: str) -> list[str]:
    return [s for s in _SENTENCES.findall(text) if s]


def _keys(parts: list[str]) -> list[str]:
    return [part.rstrip() for part in parts]


_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SMALL_WORDS = frozenset(Path(__file__).with_name("small_words.txt").read_text("utf-8").split())


def stem(word: str) -> str:
    """Return a word without its plural ending.

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
    """Return the unique stemmed content words of a text, in order."""
    return list(dict.fromkeys(stem(w) for w in _WORD.findall(text) if w.casefold() not in _SMALL_WORDS and len(w) > 1))


def head_of(label: str) -> str:
    """Return the head noun of a label: the last word before *of*, *with*, *in* and the like."""
    words = _WORD.findall(label)
    for i, word in enumerate(words):
        if i and word.casefold() in _SMALL_WORDS and word.casefold() not in ("a", "an", "and", "the"):
            words = words[:i]
            break
    return stem(words[-1]) if words else ""


@dataclass(frozen=True)
class Covered:
    """How a text covers an object: whether its head noun occurs, the missing words, and the fraction that occurs."""

    id: str
    label: str
    named: bool
    missing: tuple[str, ...]
    share: float


def coverage(objects: Sequence[BoxedObject], text: str) -> tuple[Covered, ...]:
    """Compute how well a text covers each object."""
    there, rows = set(naming_words(text)), []
    for o in objects:
        words = naming_words(f"{o.label} {o.description}")
        missing = tuple(w for w in words if w not in there)
        head = head_of(o.label) or (words[0] if words else "")
        share = 1 - len(missing) / len(words) if words else 1.0
        rows.append(Covered(o.id, o.label, not head or head in there, missing, round(share, 4)))
    return tuple(rows)


def left_out(objects: Sequence[BoxedObject], text: str) -> tuple[str, ...]:
    """Return the labels of the objects that the text does not name."""
    return tuple(c.label or "(no label)" for c in coverage(objects, text) if not c.named)


def by_round(histories: Iterable[Sequence[Version]]) -> list[dict[str, Any]]:
    """Compute the mean words, active seconds and fraction of changed words per round."""
    rounds: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for versions in histories:
        people = (texts for texts in _with_texts(versions) if texts[0].kind != "seed")
        for number, (version, before, after) in enumerate(people, 1):
            rounds[number].append((len(after.split()), version.seconds, edited(before, after)))
    rows = []
    for number, of_round in sorted(rounds.items()):
        words, seconds, part = map(fmean, zip(*of_round, strict=True))
        means = {"words": round(words, 1), "seconds": round(seconds, 1), "edited": round(part, 4)}
        rows.append({"round": number, "n": len(of_round), **means})
    return rows


def krippendorff_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Compute Krippendorff's alpha for interval data.

    The formula is from Krippendorff 2011, *Computing Krippendorff's Alpha-Reliability*, part D:

        α = 1 − D_o / D_e
        D_o = (1/n) Σ_u Σ_{i≠j} (v_ui − v_uj)² / (m_u − 1)
        D_e = Σ_{i≠j} (v_i − v_j)² / (n (n − 1))

    ``D_o`` is the observed and ``D_e`` the expected disagreement. A unit ``u`` has ``m_u ≥ 2`` values ``v_ui``; ``n``
    is the number of values ``v_i`` in all units. The result is ``None`` if ``D_e`` is 0.
    """
    usable = [list(unit) for unit in units if len(unit) >= 2]
    everything = [v for unit in usable for v in unit]
    expected = _squares(everything)
    if not expected:
        return None
    observed = sum(_squares(unit) / (len(unit) - 1) for unit in usable)
    return 1 - (len(everything) - 1) * observed / expected


def _squares(values: Sequence[float]) -> float:
    """Compute the sum of squared differences over all ordered pairs."""
    return 2 * (len(values) * sum(v * v for v in values) - sum(values) ** 2)


def agreement(judgements: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Compute the agreement of annotators per dimension, over pairs of texts that several annotators compared."""
    pairs = grouped(((row["picture"], row["first"], row["second"]), row["answers"]) for row in judgements)
    several = [answers for answers in pairs.values() if len(answers) >= 2]
    rows: dict[str, dict[str, Any]] = {}
    for name in DIMENSIONS if several else ():
        alpha = krippendorff_alpha([[a[name] for a in answers] for answers in several])
        same = fmean(np.sign(a[name]) == np.sign(b[name]) for answers in several for a, b in combinations(answers, 2))
        counts = {"pairs": len(several), "n": sum(map(len, several))}
        rows[name] = {"alpha": None if alpha is None else round(alpha, 4), "same": round(same, 4), **counts}
    return rows


def by_authors_of_a_text(judgements: Iterable[Mapping[str, Any]]) -> int:
    """Count the comparisons in which the judge wrote one of the two texts."""
    return sum(any(row[side].endswith(f" by {row['author']}") for side in ("first", "second")) for row in judgements)


@dataclass(frozen=True)
class Net:
    """The net preference for the first text, −1 to 1, with a 95 % bootstrap interval over pictures."""

    value: float
    low: float
    high: float
    n: int


def net_preference(
    judgements: Sequence[Mapping[str, int]], pictures: Sequence[str], n_draws: int = 2000
) -> dict[str, Net]:
    """Compute the net preference for the first text, per dimension and as ``mean``, with bootstrap intervals."""
    place = {picture: i for i, picture in enumerate(dict.fromkeys(pictures))}
    sums = torch.zeros(len(place), len(DIMENSIONS) + 1, 2, dtype=torch.double)
    for picture, row in zip(pictures, judgements, strict=True):
        signs = torch.tensor([row[d] for d in DIMENSIONS], dtype=torch.double).sign()
        sums[place[picture], :, 0] += torch.cat([signs, signs.mean(0, keepdim=True)])
        sums[place[picture], :, 1] += 1
    drawn = paired(sums, lambda means: means[..., 0] / means[..., 1], n_draws=n_draws, seed=0)
    return {
        name: Net(float(drawn.values[i]), *drawn.interval(i), len(judgements))
        for i, name in enumerate([*DIMENSIONS, "mean"])
    }
