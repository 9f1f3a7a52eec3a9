"""Pages on the labelled pictures given with ``--data``: what is wrong, and what edited words change on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Query
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...report.edit_words import edit_document
from ...report.page import document_context
from .base import JPEG, NOT_THERE, PAGE, Format, Jpeg, answer, page_route, render, said
from .mistakes import Asked, Order
from .paging import PageNumber
from .session import reader_of, signed
from .state import State

THUMBS_A_PAIR = 12
Index = Annotated[int, InPath(ge=0, le=2**31, description="The picture's number.")]
OneOf = Annotated[str, Query(max_length=500, description="One of the classes; left out or empty, all.")]
Listed = Annotated[
    Order | None, Query(description="By pair of classes, or one by one; left out, one by one within one pair.")
]


class BrowsingPages:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(self, state: State) -> None:
        self.state = state

    def mount(self, app: FastAPI) -> None:
        """Give every page its address."""
        page = page_route()
        app.add_api_route("/mistakes", self.mistakes, responses=PAGE, **page)
        app.add_api_route("/changes", self.changes, responses=PAGE, **page)
        found = {**PAGE, **NOT_THERE, **said(303, "Shown; the card is at `location`.")}
        app.add_api_route("/sample/{index}", self.sample, responses=found, **page)
        app.add_api_route(
            "/sample/{index}/thumbnail", self.thumbnail, responses=JPEG, response_class=Jpeg, response_model=None
        )

    async def mistakes(
        self,
        true: OneOf = "",
        predicted: OneOf = "",
        order: Listed = None,
        page: PageNumber = 1,
        format: Format = "html",
    ) -> Response:
        """What the classifier gets wrong on the pictures given with `--data`, so far; by pair or one by one."""
        found = self.state.mistakes
        asked = Asked(true or None, predicted or None, order or ("surest" if true and predicted else "pairs"), page)
        data = {"n": 0, "confusions": [], "pictures": []} if found is None else found.to_json(asked)

        def rendered() -> str:
            kept = {"true": true, "predicted": predicted, "order": asked.order}
            return render(
                "mistakes.html",
                found=data,
                asked=asked,
                labels=() if found is None else found.labels,
                classes=self.state.classifier.classes,
                most=THUMBS_A_PAIR,
                corrections=self.state.corrections,
                link=lambda **other: f"/mistakes?{urlencode({k: v for k, v in {**kept, **other}.items() if v})}",
                **self.state.bar("mistakes"),
            )

        return answer(format, lambda: data, rendered)

    async def changes(self, request: Request, format: Format = "html") -> Response:
        """What the reader's edited words change on the pictures given with `--data`: for all, by group, by picture."""
        data = await self.state.effect(reader_of(self.state.memory, request))

        def rendered() -> str:
            missing = data if "missing" in data else None
            about = {} if missing else document_context(edit_document(data))
            return render("changes.html", missing=missing, **about, **self.state.bar("changes"))

        return answer(format, lambda: data, rendered)

    async def sample(self, request: Request, index: Index, format: Format = "html") -> Response:
        """Show one of the pictures given with `--data`, by its number."""
        sample, reader = self.state.sample(index), reader_of(self.state.memory, request)
        shown = await self.state.look(sample.image, Path(sample.image).name, reader, sample.label)
        if format == "html":
            return signed(RedirectResponse(f"/card/{shown.id}", 303), request, reader)
        made = await self.state.explain(shown, reader, None, None, measure=False)
        return signed(JSONResponse(self.state.card_json(shown, made, reader, False)), request, reader)

    async def thumbnail(self, index: Index) -> Response:
        """A small copy of one of the pictures given with `--data`."""
        return Jpeg(await self.state.thumbnail(index))
