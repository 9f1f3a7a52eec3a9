"""The mistakes of the classifier on labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...clusters import grouped
from .base import paged
from .rows import READ, UNREADABLE, VERDICTS, WAITING, Rows, number_or_none

PAIRS_A_PAGE = 20
PICTURES_A_PAGE = 48

Order = Literal["pairs", "surest", "least_sure"]
Mistake = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    true: str | None = None
    predicted: str | None = None
    order: Order = "pairs"
    page: int = 1

    def takes(self, mistake: Mistake) -> bool:
        return self.true in (None, mistake["true"]) and self.predicted in (None, mistake["predicted"])


class Mistakes:
    """The pictures whose prediction differs from their label."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        own = {s.label for s in rows.items}
        self.labels: tuple[str, ...] = tuple(c for c in rows.classifier.classes if c in own)

    @property
    def found(self) -> list[Mistake]:
        """All mistakes, the least doubtful first."""
        index = self.rows.wrong.nonzero()[0]
        return [self._of(i) for i in index[np.argsort(self.rows.doubt[index], kind="stable")].tolist()]

    def _of(self, i: int) -> Mistake:
        rows = self.rows
        chance = rows.score if VERDICTS[rows.verdict[i]] == "not measured" else rows.probability
        return {
            "image": rows.names[i], "true": rows.classes[rows.label[i]], "predicted": rows.classes[rows.predicted[i]],
            "score": number_or_none(rows.score[i]), "probability": number_or_none(chance[i]),
            "key": rows.key[i].decode(), "doubt": number_or_none(rows.doubt[i]), "card": f"/sample/{i}",
        }  # fmt: skip

    def to_json(self, listing: Listing) -> dict[str, Any]:
        for label in (listing.true, listing.predicted):
            if label is not None:
                self.rows.classifier.index_of(label)
        found = [*filter(listing.takes, self.found)]
        if listing.order == "pairs":
            page, pages, pairs = paged(_by_pair(found), listing.page, PAIRS_A_PAGE)
            listed: dict[str, Any] = {"confusions": pairs, "pictures": []}
        else:
            ordered = found if listing.order == "surest" else found[::-1]
            page, pages, one_by_one = paged(ordered, listing.page, PICTURES_A_PAGE)
            listed = {"confusions": [], "pictures": one_by_one}
        rows, state = self.rows, self.rows.state[self.rows.is_known]
        n_seen, n_right = int((state == READ).sum()), int(rows.right[rows.is_known].sum())
        return {
            "n": len(state), "done": int((state != WAITING).sum()), "right": n_right,
            "accuracy": round(n_right / n_seen, 4) if n_seen else None, "failed": int((state == UNREADABLE).sum()),
            "unknown_class": sum(bool(s.label) for s in rows.items) - len(state), "problem": rows.problem or None,
            "fitted_on": rows.fitted_on(), "found": len(found), "order": listing.order, "page": page, "pages": pages,
            **listed,
        }  # fmt: skip


def _by_pair(found: Sequence[Mistake]) -> list[dict[str, Any]]:
    """Group mistakes by pair of classes, with the most frequent pair first."""
    groups = grouped(((mistake["true"], mistake["predicted"]), mistake) for mistake in found)
    return [
        {"true": true, "predicted": predicted, "n": len(mistakes), "pictures": mistakes}
        for (true, predicted), mistakes in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    ]
