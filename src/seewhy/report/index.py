"""Many cards on one page: the doubtful ones first, the failed ones listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..explanation.base import Explanation
from ..explanation.prediction import Certainty
from ..explanation.verdict import Level, Missing
from ..types import Failure
from .card import SIGNS
from .heat import blend
from .page import photo_uri, render

THUMBNAIL_SIDE = 256
QUESTIONS = ("Where it looked", "What it looks like", "In words")
DOUBT: tuple[Level, ...] = ("do not rely", "partly", "not measured", "believable")
"""Verdicts from most to least doubtful; an evidence that is not there counts as not measured."""


@dataclass(frozen=True)
class IndexEntry:
    """What the index keeps of one explanation, so that a large batch need not stay in memory.

    Attributes:
        href: the card, relative to the index page.
        image: file name as given.
        label: the decision.
        score: the classifier's own score of it, 0…1.
        second: what it was nearly, and the classifier's own score of it; None when there is one class only.
        levels: the verdicts on where, like and words; of a part, first on what is done inside it.
        thumbnail: the picture with its heat, as a data URI.
        aside: what the evidence is about, where that is not the decision.
        verdict: how far to trust the decision.
        probability: as :attr:`seewhy.explanation.prediction.Prediction.probability`.
        is_measured: whether held-out pictures say so.
        trouble: as :attr:`seewhy.explanation.prediction.Decision.doubt`, where that was measured.
    """

    href: str
    image: str
    label: str
    score: float
    second: tuple[str, float] | None
    levels: tuple[Level, ...]
    thumbnail: str
    aside: str = ""
    verdict: Certainty = "not measured"
    probability: float | None = None
    is_measured: bool = False
    trouble: float | None = None

    @property
    def doubt(self) -> tuple[float, int, float]:
        """Sorts the most doubtful first: by the decision where that was measured, else by the worst evidence.

        Decisions that were not measured stand between those unlike anything known and the others.
        """
        worst = min(DOUBT.index(level) for level in self.levels)
        return -(1.0 if self.trouble is None else self.trouble), worst, self.score

    @property
    def sign(self) -> tuple[Level, str]:
        return SIGNS[self.verdict]


def index_entry(explanation: Explanation, href: str) -> IndexEntry:
    """Shrink an explanation to its place on the index; ``href`` leads to its card."""
    e = explanation
    second, decision = next(iter(e.prediction.top[1:]), None), e.prediction.decision
    return IndexEntry(
        href=href,
        image=e.prediction.image,
        label=e.prediction.label,
        score=e.prediction.score,
        second=(second.label, second.score) if second else None,
        levels=_levels(e),
        thumbnail=photo_uri(_thumbnail(e), quality=82),
        aside=". ".join(said for said in (e.part.name if e.part else "", e.aside) if said),
        verdict="not measured" if decision is None else decision.verdict,
        probability=e.prediction.probability,
        is_measured=e.prediction.is_measured,
        trouble=None if decision is None else decision.doubt,
    )


def _levels(e: Explanation) -> tuple[Level, ...]:
    """Of a part, first the verdict on what of its score is done inside it."""
    levels = {answer.key: answer.level for answer in e.answers if answer.key not in ("seen", "typical")}
    return tuple((levels if e.part is None else {"part": "not measured", **levels}).values())


def _thumbnail(e: Explanation) -> np.ndarray:
    shown = e.view if isinstance(e.where, Missing) else blend(e.view, e.where.heat, 0.7)
    picture = Image.fromarray(shown)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def render_index(
    entries: Sequence[IndexEntry],
    failures: Sequence[Failure] = (),
    title: str = "Explanations",
    nouns: tuple[str, str] = ("picture", "pictures"),
) -> str:
    """The index page of a batch.

    It is complete without a script, sorted by doubt; the script only sorts and filters anew.
    """
    of_parts = any(len(entry.levels) > len(QUESTIONS) for entry in entries)
    ordered = sorted(entries, key=lambda entry: (*entry.doubt, entry.image))
    by_name = sorted(ordered, key=lambda entry: entry.image.casefold())
    by_score = sorted(ordered, key=lambda entry: -1.0 if entry.probability is None else entry.probability)
    names = {id(entry): rank for rank, entry in enumerate(by_name)}
    scores = {id(entry): rank for rank, entry in enumerate(by_score)}
    labels = sorted({entry.label for entry in entries}, key=str.casefold)
    return render(
        "index.html",
        "index.js",
        title=title,
        nouns=nouns,
        cards=[(entry, rank, names[id(entry)], scores[id(entry)]) for rank, entry in enumerate(ordered)],
        classes=[(label, sum(entry.label == label for entry in entries)) for label in labels],
        failures=failures,
        questions=[*(["Inside it, or outside"] if of_parts else []), *QUESTIONS],
        of_parts=of_parts,
        n_unknown=sum(entry.verdict == "unlike anything it knows" for entry in entries),
        n_unreliable=sum("do not rely" in entry.levels for entry in entries),
    )
