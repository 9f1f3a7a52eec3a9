"""What would help the model most: more pictures, a look at some classes, or labels for some pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.responses import Response

from ...language.annotation.records import OPEN
from ...progress import Progress
from ...studies.refit import Labels
from ...studies.study import Row
from ...studies.what_next import what_next
from .base import Format, add_page, answer, render
from .job import Job
from .rows import READ, UNREADABLE, Rows
from .state import State

SCRIPT = "next.js"
N_TO_LABEL = 20
N_SHOWN = 6
"""Number of pictures that are shown per class."""
ORDER = (
    "Pictures whose two most probable classes have the closest probabilities come first. Compared with a random "
    "order, this order raised accuracy by 1.4 points (0.6 to 2.1) on photographs of groceries and by 3.0 points "
    "(0.5 to 5.4) on products. On small photographs of ten classes, it made no difference."
)
CLASSES = (
    "Look at their pictures first: labels may be wrong, or two classes may look alike. New pictures of these classes "
    "alone do not help. In a test with the worst two of ten classes, accuracy ended 5.0 points lower than with as many "
    "new pictures of all classes (3.7 to 6.3). So add pictures of every class."
)
"""What ``benchmarks/loop.py`` measured of both orders (docs/measured.md)."""


class Next:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(self, state: State) -> None:
        assert state.rows is not None
        self.rows, self._state = state.rows, state
        self.job = Job(self._work, self.rows.whole)

    def mount(self, app: FastAPI) -> None:
        add_page(app, "/next", self.page)
        self.job.mount(app, "/next", "Start the analysis with the current labels, unless it is running.")

    def page(self, format: Format = "html") -> Response:
        """Suggestions of what would help this model most, each with a reason."""
        decided, corrections = self._state.decided(), self._state.corrections
        state = self.job.state()  # first: a job that ends in between is followed by the page
        result = self.job.result or {"more": None, "classes": None}
        data = {**state, **result, "fitted_on": self.rows.fitted_on(), "label": to_label(self.rows, decided)}
        settings = {
            "decisions": corrections is not None, "order": ORDER, "advice": CLASSES, "most": N_SHOWN, "state": state,
            "labels": () if corrections is None else corrections.decisions.classes,
        }  # fmt: skip
        return answer(format, lambda: data, lambda: render("next.html", **data, **settings, **self._state.bar("next")))

    def _work(self, progress: Progress) -> Row:
        """Analyse the stored features of the pictures."""
        rows, index = self.rows, self.rows.whole()
        keys = [rows.key[i].decode() for i in index]
        labels = Labels.of([rows.items[i].label for i in index], keys, self._state.decided(), rows.classes)
        keep = ((labels.after >= 0) & ~labels.dropped).nonzero()[:, 0].tolist()
        names = [rows.classes[int(labels.after[i])] for i in keep]
        places = index[keep]
        encoder = rows.classifier.encoder
        result = what_next(encoder, rows.pooled(places), names, [keys[i] for i in keep], progress)
        for row in result["classes"]:
            row["wrong"] = [{"index": int(places[i]), "image": rows.names[int(places[i])]} for i in row["wrong"]]
        return result


def to_label(rows: Rows, decided: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the number of pictures without a label or a decision, and the pictures to label first.

    Pictures whose two likeliest classes have the most similar scores come first. Of exact copies, only one is listed,
    and none if a copy has a label.
    """
    bare = np.array([not s.label for s in rows.items], bool)
    labelled = np.isin(rows.key, rows.key[~bare & (rows.state == READ)])
    index = (bare & (rows.state == READ) & ~labelled).nonzero()[0]
    is_open = [decided.get(rows.key[i].decode(), {}).get("decision", OPEN) == OPEN for i in index]
    left = index[np.array(is_open, bool)]
    left = left[np.argsort(rows.score[left] - rows.second_score[left], kind="stable")]
    once = list({rows.key[i]: int(i) for i in left[::-1]}.values())[::-1]
    return {
        "n": int(bare.sum()), "waiting": len(rows.items) - rows.n_done, "left": len(left),
        "unreadable": int((bare & (rows.state == UNREADABLE)).sum()),
        "pictures": [_row(rows, i, decided.get(rows.key[i].decode(), {})) for i in once[:N_TO_LABEL]],
    }  # fmt: skip


def _row(rows: Rows, i: int, standing: Mapping[str, Any]) -> dict[str, Any]:
    first, second = (rows.classes[int(column[i])] for column in (rows.predicted, rows.second))
    one, two = float(rows.score[i]), float(rows.second_score[i])
    return {
        "index": i, "image": rows.names[i], "first": first, "second": second, "score": round(one, 4),
        "second_score": round(two, 4), "number": standing.get("number", 0),
        "reason": f"The two most probable classes are {first} ({100 * one:.0f} %) and {second} ({100 * two:.0f} %).",
    }  # fmt: skip
