"""Rounds: what one annotator changed of another's text, when to stop, and one text out of two from the same base.

Annotators work one after another (section 3.2 of the paper) for a set number of rounds; here they may also stop early.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, NamedTuple

from .records import Content, Version

_WORDS = re.compile(r"\S+\s*|\s+")
_SENTENCES = re.compile(r".+?(?:[.!?][\"')\]]*\s+|\n\s*|$)", re.DOTALL)

MOST_PAIRS = 250_000
"""Of parts of two texts, beyond which parts that come again and again match beside others alone."""


class Change(NamedTuple):
    """A run of words that stayed, went or came: ``kind`` is ``"same"``, ``"removed"`` or ``"added"``."""

    kind: str
    text: str


def changes(before: str, after: str) -> tuple[Change, ...]:
    """How one text became the other, word by word.

    >>> [tuple(c) for c in changes("a red cup", "a blue cup")]
    [('same', 'a '), ('removed', 'red '), ('added', 'blue '), ('same', 'cup')]
    """
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
    """Part of the words that were changed: 0 nothing, 1 everything.

    >>> edited("a red cup", "a blue cup"), edited("", "a cup"), edited("", "")
    (0.3333333333333333, 1.0, 0.0)
    """
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
