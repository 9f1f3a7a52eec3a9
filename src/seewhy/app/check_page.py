"""The page of ``seewhy check`` on which labels are corrected: the findings, and what several people decided on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from ..annotation.labels import LabelDecisions, known_picture
from ..annotation.store import Conflict, Saved
from ..card.check import check_context
from ..errors import DataError
from ..inspection.findings import KINDS
from .annotate_data import Key
from .base import JSON_ONLY, NOT_THERE, PAGE, Format, answer, data_route, make_base, page_route, render, said
from .settings import Settings

FASTER = said(409, "Somebody decided in between; the answer holds what, and nothing was changed.")


class UndoBody(BaseModel):
    """Who goes back, and from what."""

    model_config = ConfigDict(allow_inf_nan=False)

    author: str = Field(max_length=1000, description="Who decides.")
    base: int = Field(ge=0, le=10**9, description="Number of the decision that was seen; 0 where there was none.")


class DecisionBody(UndoBody):
    """A decision on one picture."""

    decision: str = Field(max_length=40, description="corrected, confirmed, later or dropped.")
    label: str = Field("", max_length=1000, description="The label it is to have, where it is corrected.")
    given: str = Field(max_length=1000, description="The label that the data give it.")


class CheckPage:
    """The handlers; their docstrings are the words of the OpenAPI document.

    Args:
        check: the document of ``seewhy check --json``.
        decisions: where what people decide is kept.
        read: gives a picture by its name.
    """

    def __init__(
        self, check: dict[str, Any], decisions: LabelDecisions, read: Callable[[str], np.ndarray | None]
    ) -> None:
        self.check = check
        self.decisions = decisions
        self.context = check_context(check, KINDS, read)
        self._images = {(f["key"], f["label"]): f["image"] for f in check["findings"] if f["key"]}

    def mount(self, app: FastAPI) -> None:
        """Give everything its address."""
        post: dict[str, Any] = {"methods": ["POST"], "responses": {**JSON_ONLY, **NOT_THERE, **FASTER}, **data_route()}
        app.add_api_route("/", self.page, responses=PAGE, **page_route())
        app.add_api_route("/decisions", self.standing, responses=JSON_ONLY, **data_route())
        app.add_api_route("/history/{key}", self.history, responses={**JSON_ONLY, **NOT_THERE}, **data_route())
        app.add_api_route("/decide/{key}", self.decide, **post)
        app.add_api_route("/undo/{key}", self.undo, **post)

    def page(self, format: Format = "html") -> Response:
        """The findings, each with what can be decided."""
        return answer(format, lambda: self.check, lambda: render("check_served.html", **self.context))

    def standing(self) -> Response:
        """What stands on each picture that somebody decided on."""
        return JSONResponse(self.decisions.standing())

    def history(self, key: Key) -> Response:
        """All that was decided on one picture, oldest first."""
        return JSONResponse(self.decisions.history(key))

    def decide(self, key: Key, body: DecisionBody) -> Response:
        """Decide on a label; it is on the disk when this answers, and nobody's decision is overwritten unseen."""
        image = self._images.get((key, body.given))
        if image is None:
            raise DataError(
                f"No finding is on a picture {key!r} labelled {body.given!r:.80}. One of the page was expected. Open "
                "it anew."
            )
        picture = known_picture(image, key)
        return _said(self.decisions.decide(picture, body.author, body.decision, body.label, body.given, body.base))

    def undo(self, key: Key, body: UndoBody) -> Response:
        """Go back to what was decided before; that, too, stays in the history."""
        return _said(self.decisions.undo(key, body.author, body.base))


def _said(done: Saved | Conflict) -> Response:
    from ..annotation.labels import told

    if isinstance(done, Saved):
        return JSONResponse(told(done.version))
    state = told(done.latest)
    text = (
        f"{state['author']} decided in between: {state['decision']}, {state['label'] or 'no label'}. What you had seen "
        "was expected to stand. Look at it and decide again."
    )
    return JSONResponse({"error": text, "state": state}, 409)


def make_check_app(
    check: dict[str, Any],
    decisions: LabelDecisions,
    read: Callable[[str], np.ndarray | None],
    settings: Settings | None = None,
) -> FastAPI:
    """The page as an ASGI app: ``seewhy check DATA --from check/ --serve``."""
    app = make_base("SeeWhy check", settings or Settings(), ("check.js",))
    CheckPage(check, decisions, read).mount(app)
    return app
