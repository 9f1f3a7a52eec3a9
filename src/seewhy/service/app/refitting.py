"""Refit the classifier with the decisions of people in the background, and compare its accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...encoders.stream import Encoded
from ...evidence.explain import ExplainOptions, explain_seen
from ...explanation.base import Explanation
from ...language.annotation.labels import NAME
from ...progress import Progress
from ...report.card import card_context
from ...report.page import document_context
from ...studies.refit import Fits, Labels, compare_labels
from ...studies.study import Findings
from .base import Format, Index, add_page, answer, render
from .job import Job
from .state import State
from .worker import LATER


@dataclass(frozen=True)
class Compared:
    """The result of the last comparison, with its classifiers and the indices of the compared pictures."""

    findings: Findings
    fits: Fits
    index: np.ndarray
    labels: Labels


class Refitting:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(self, state: State) -> None:
        assert state.rows is not None
        self.rows, self._state = state.rows, state
        self.job = Job(self._compare, self.rows.whole)

    def mount(self, app: FastAPI) -> None:
        add_page(app, "/refit", self.page)
        add_page(app, "/refit/cards/{index}", self.cards)
        self.job.mount(app, "/refit", "Start with the current decisions, unless a fit is running.")

    def page(self, format: Format = "html") -> Response:
        """The accuracy before and after the decisions, and the changed predictions."""
        state, comparison = self.job.state(), self.job.result  # in this order: a job may end in between
        data = state if comparison is None else {**state, **comparison.findings.data}

        def rendered() -> str:
            about = {} if comparison is None else document_context(comparison.findings.document())
            more = {"state": state, "found": comparison is not None, "export": NAME}
            return render("refit.html", **about, **more, **self._state.bar("refit"))

        return answer(format, lambda: data, rendered)

    async def cards(self, index: Index, format: Format = "html") -> Response:
        """One picture, predicted before and after the decisions by classifiers that did not learn from it."""
        comparison, state = self.job.result, self._state
        if comparison is None:
            raise HTTPException(404, "The server has made no comparison since it started. Press Fit and compare first.")
        place = int(np.searchsorted(comparison.index, index))
        if place == len(comparison.index) or comparison.index[place] != index:
            raise HTTPException(
                404, "The comparison has no picture with this number. Choose a picture of the comparison."
            )
        encoded = await state.see_sample(index)
        both = await state.compute(lambda: [self._side(comparison, side, place, encoded) for side in (0, 1)], LATER)
        row = next((r for r in comparison.findings.data["changed"] if r["index"] == index), None)
        about = {"index": index, "image": self.rows.names[index], "label": state.sample(index).label}
        after = int(comparison.labels.after[place])
        about |= {"now": self.rows.classes[after] if after >= 0 else "", "effect": row and row["effect"]}

        def data() -> dict[str, Any]:
            before, after = ({**card.to_json(), "learnt": learnt} for card, learnt in both)
            return {**about, "before": before, "after": after}

        def rendered() -> str:
            shown = [{**card_context(card), "learnt": learnt} for card, learnt in both]
            terms = {term.key: term for one in shown for term in one["terms"]}.values()
            return render("refit_cards.html", **about, shown=shown, terms=[*terms], **self._state.bar("cards"))

        return answer(format, data, rendered)

    def _side(
        self, comparison: Compared, side: int, place: int, encoded: Encoded
    ) -> tuple[Explanation, list[dict[str, Any]]]:
        """The card of a picture before or after the decisions, and the most similar training pictures."""
        rows, fits = self.rows, comparison.fits
        options = ExplainOptions(measure=self._state.settings.measure)
        card = next(explain_seen(fits.classifier(side, place), [encoded], options))
        learnt = []
        for k in fits.alike(side, place, lambda part: rows.pooled(comparison.index[part.numpy()])):
            before, as_what = (int(of[k]) for of in (comparison.labels.before, fits.learnt[side]))
            i = int(comparison.index[k])
            label = rows.classes[as_what]
            learnt.append({"index": i, "image": rows.names[i], "label": label, "changed": before != as_what})
        return card.without_folders(), learnt

    def _compare(self, progress: Progress) -> Compared:
        rows, decided = self.rows, self._state.decided()
        index = np.array([i for i in rows.whole() if rows.items[i].label or rows.key[i].decode() in decided], int)
        before = [rows.items[i].label for i in index]
        keys = [rows.key[i].decode() for i in index]
        labels = Labels.of(before, keys, decided, rows.classes)
        names = [rows.names[i] for i in index]
        encoder, pooled = rows.classifier.encoder, rows.pooled(index)
        findings, fits = compare_labels(encoder, pooled, labels, rows.classes, names, progress)
        for row in findings.data["changed"]:
            i = row["index"] = int(index[row["index"]])
            row |= {"card": f"/refit/cards/{i}", "thumbnail": f"/sample/{i}/thumbnail"}
        return Compared(findings, fits, index, labels)
