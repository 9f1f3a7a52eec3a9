"""Routes for decisions on labels, and the page of a check."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from ...encoders.stream import file_digest
from ...errors import DataError
from ...language.annotation.labels import KEY, NAME, Corrections, as_row, known_picture
from ...language.annotation.records import DECISIONS, Version
from ...language.annotation.store import Conflict
from ...pictures.samples import Sample
from ...report.blocks import spoken
from ...report.overviews import check_context
from ...studies.inspection.check import KINDS
from .base import CSV, Format, add_data, add_file, add_page, answer, make_base, render
from .settings import Settings

SCRIPT = "deciding.js"
Key = Annotated[str, InPath(min_length=1, max_length=64, description="The picture's key, as in the list.")]


class UndoBody(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    author: str = Field(max_length=1000, description="Who decides.")
    base: int = Field(ge=0, le=10**9, description="Number of the latest decision that the client has seen; 0 for none.")


class DecisionBody(UndoBody):
    decision: str = Field(max_length=40, description=f"One of {', '.join(DECISIONS)}.")
    label: str = Field("", max_length=1000, description="The new label, if the label is changed.")
    given: str = Field(max_length=1000, description="The label in the data.")


class Deciding:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(self, corrections: Corrections, image_of: Callable[[str, str], str | None]) -> None:
        self.corrections = corrections
        self._decisions = corrections.decisions
        self._image_of = image_of

    def mount(self, app: FastAPI) -> None:
        add_data(app, "/decisions", self.standing)
        add_data(app, "/history/{key}", self.history)
        add_data(app, "/decide/{key}", self.decide, methods=["POST"])
        add_data(app, "/undo/{key}", self.undo, methods=["POST"])
        add_file(app, f"/{NAME}", self.table, CSV)

    def standing(self) -> Response:
        """The current decision on each picture."""
        return JSONResponse(self._decisions.standing())

    def history(self, key: Key) -> Response:
        """All decisions on one picture, oldest first."""
        return JSONResponse(self._decisions.history(key))

    def decide(self, key: Key, body: DecisionBody) -> Response:
        """Save a decision on a label, unless a newer one exists that the client has not seen."""
        image = self._image_of(key, body.given)
        if image is None:
            raise DataError(f"No listed picture has the key {key!r} and the label {body.given!r:.80}. Reload the page.")
        picture = known_picture(image, key)
        return _answer(self._decisions.decide(picture, body.author, body.decision, body.label, body.given, body.base))

    def undo(self, key: Key, body: UndoBody) -> Response:
        """Return to the previous decision. The history keeps both."""
        return _answer(self._decisions.undo(key, body.author, body.base))

    def table(self) -> Response:
        """The data with all decisions, as CSV. File names are relative to the folder of the data."""
        data = self.corrections.table().encode("utf-8", "backslashreplace")
        return Response(data, media_type=CSV, headers={"content-disposition": f'attachment; filename="{NAME}"'})


def _answer(done: Version | Conflict) -> Response:
    if isinstance(done, Version):
        return JSONResponse(as_row(done))
    state = as_row(done.latest)
    text = (
        f"{state['author']} decided first: {spoken(state['decision'])}, {state['label'] or 'no label'}. "
        "Your decision was not saved. Look at that decision and decide again."
    )
    return JSONResponse({"error": text, "state": state}, 409)


def make_check_app(
    check: dict[str, Any],
    corrections: Corrections,
    read: Callable[[str], np.ndarray | None],
    settings: Settings | None = None,
    others: Sequence[Sample] = (),
) -> FastAPI:
    """Return the page as an ASGI app: ``seewhy check DATA --from check/ --serve``.

    The page shows pictures of the data and of ``others`` alone, whatever files the check names, and a finding's own
    picture only while its digest is the one in the check.
    """
    files = {os.path.abspath(sample.image): sample.image for sample in (*corrections.data.items, *others)}
    keys = {os.path.abspath(f["image"]): f["key"] for f in check["findings"]}

    def read_given(name: str) -> np.ndarray | None:
        file, key = files.get(os.path.abspath(name)), keys.get(os.path.abspath(name))
        return None if file is None or key not in (None, (file_digest(file) or "")[:KEY]) else read(file)

    app = make_base("SeeWhy check", settings or Settings(), (SCRIPT,))
    context = {**check_context(check, KINDS, read_given), "data": corrections.data.path.name}

    def page(format: Format = "html") -> Response:
        """The findings, with buttons to decide on each label."""
        return answer(format, lambda: check, lambda: render("check_served.html", **context))

    images = {(f["key"], f["label"]): f["image"] for f in check["findings"] if f["key"]}
    add_page(app, "/", page)
    Deciding(corrections, lambda key, given: files.get(os.path.abspath(images.get((key, given), "")))).mount(app)
    return app
