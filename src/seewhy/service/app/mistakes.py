"""The mistakes of the classifier on labelled pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ...explanation.result import HIDDEN, Json, Result
from .base import paged
from .rows import READ, UNREADABLE, VERDICTS, WAITING, Rows

PAIRS_A_PAGE = 20
PICTURES_A_PAGE = 48

Order = Literal["pairs", "surest", "least_sure"]


@dataclass(frozen=True)
class Mistake(Result):
    computed: ClassVar = ("doubt", "card")

    index: Annotated[int, HIDDEN]
    name: Annotated[str, Json("image")]
    true: str
    predicted: str
    score: float
    probability: float | None
    key: str
    measured_doubt: Annotated[float | None, HIDDEN] = None

    @property
    def doubt(self) -> float:
        return 1 - self.score if self.measured_doubt is None else self.measured_doubt

    @property
    def card(self) -> str:
        return f"/sample/{self.index}"


@dataclass(frozen=True)
class Listing:
    true: str | None = None
    predicted: str | None = None
    order: Order = "pairs"
    page: int = 1

    def takes(self, mistake: Mistake) -> bool:
        return self.true in (None, mistake.true) and self.predicted in (None, mistake.predicted)


class Mistakes:
    """The pictures whose prediction differs from their label."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._known = (rows.label >= 0) & (rows.label < len(rows.classifier.classes))
        own = {s.label for s in rows.items}
        self.labels: tuple[str, ...] = tuple(c for c in rows.classifier.classes if c in own)

    @property
    def found(self) -> list[Mistake]:
        rows = self.rows
        return [self._of(i) for i in rows.wrong.nonzero()[0].tolist()]

    def _of(self, i: int) -> Mistake:
        rows = self.rows
        verdict, score = VERDICTS[rows.verdict[i]], float(rows.score[i])
        chance = float(rows.chance[i])
        label, predicted = rows.classes[rows.label[i]], rows.classes[rows.predicted[i]]
        probability = None if np.isnan(chance) else chance
        doubt = None if verdict == "not measured" else float(rows.doubt[i])
        name, key = rows.name(i), rows.key[i].decode()
        return Mistake(i, name, label, predicted, score, probability, key, doubt)

    def to_json(self, listing: Listing | None = None) -> dict[str, Any]:
        listing = listing or Listing()
        for label in (listing.true, listing.predicted):
            if label is not None:
                self.rows.classifier.index_of(label)
        found = sorted(filter(listing.takes, self.found), key=lambda m: (m.doubt, m.index))
        if listing.order == "pairs":
            page, pages, pairs = paged(_by_pair(found), listing.page, PAIRS_A_PAGE)
            listed: dict[str, Any] = {"confusions": pairs, "pictures": []}
        else:
            ordered = found if listing.order == "surest" else found[::-1]
            page, pages, one_by_one = paged(ordered, listing.page, PICTURES_A_PAGE)
            listed = {"confusions": [], "pictures": [m.to_json() for m in one_by_one]}
        rows, state = self.rows, self.rows.state[self._known]
        n_seen, n_right = int((state == READ).sum()), int(rows.right[self._known].sum())
        return {
            "n": len(state), "done": int((state != WAITING).sum()), "right": n_right,
            "accuracy": round(n_right / n_seen, 4) if n_seen else None, "failed": int((state == UNREADABLE).sum()),
            "unknown_class": sum(bool(s.label) for s in rows.items) - len(state), "problem": rows.problem or None,
            "fitted_on": rows.fitted_on(), "found": len(found), "order": listing.order, "page": page, "pages": pages,
            **listed,
        }  # fmt: skip


def _by_pair(found: Sequence[Mistake]) -> list[dict[str, Any]]:
    """Group mistakes by pair of classes, with the most frequent pair first."""
    groups: dict[tuple[str, str], list[Mistake]] = defaultdict(list)
    for mistake in found:
        groups[mistake.true, mistake.predicted].append(mistake)
    return [
        {"true": true, "predicted": predicted, "n": len(mistakes), "pictures": [m.to_json() for m in mistakes]}
        for (true, predicted), mistakes in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    ]
