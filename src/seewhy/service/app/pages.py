"""The pages: each gathers what it shows from the state, and gives it as HTML or as its JSON twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Query
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...classifiers.base import Classifier
from ...classifiers.words import texts_of, words_decide
from ...errors import InputError
from ...evidence.explain import runner_up
from ...explanation.base import Explanation
from ...explanation.verdict import Missing
from ...report import index_entry
from ...report.card import card_context
from ...report.heat import overlay
from ...report.page import layer_uri, photo_uri
from .base import JSON_ONLY, NOT_THERE, PAGE, Format, answer, data_route, page_route, render, said
from .editing import moved
from .memory import Reader, Shown
from .session import reader_of, signed
from .state import State
from .upload import UPLOAD_BODY, read_form, read_upload

FINER = 12
"""Pixels of a word's overlay for each cell; the browser smooths the rest."""

Id = Annotated[str, InPath(min_length=1, max_length=64, description="What the picture was called when it was shown.")]
Label = Annotated[
    str | None, Query(max_length=500, description="One of the classes; left out or empty, the decision's.")
]
FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["label", "texts"],
                    "properties": {
                        "label": {"type": "string", "description": "A class."},
                        "texts": {"type": "string", "description": "Its texts, one a line; all of them."},
                    },
                }
            }
        },
    }
}


class Pages:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(self, state: State) -> None:
        self.state = state

    def mount(self, app: FastAPI) -> None:
        """Give every page its address."""
        gone = {**PAGE, **NOT_THERE}
        page, twin = page_route(), data_route()
        app.add_api_route("/", self.home, responses=PAGE, **page)
        late = {**PAGE, **said(303, "Shown; the card is at `location`."), **said(408, "The body came too slowly.")}
        app.add_api_route("/look", self.look, methods=["POST"], responses=late, openapi_extra=UPLOAD_BODY, **page)
        app.add_api_route("/card/{id}", self.card, responses=gone, **page)
        app.add_api_route("/card/{id}/words", self.words, responses={**JSON_ONLY, **NOT_THERE}, **twin)
        app.add_api_route("/card/{id}/place", self.place, responses={**JSON_ONLY, **NOT_THERE}, **twin)
        taken = {**gone, **said(303, "Taken; the card is at `location`."), **said(408, "The body came too slowly.")}
        edit: dict[str, Any] = {"methods": ["POST"], "responses": taken, **page}
        app.add_api_route("/card/{id}/edit", self.edit, openapi_extra=FORM_BODY, **edit)
        app.add_api_route("/card/{id}/reset", self.reset, **edit)
        app.add_api_route("/descriptions", self.descriptions, responses={**JSON_ONLY, **NOT_THERE}, **twin)
        app.add_api_route("/help", self.help, responses=PAGE, **page)

    async def home(self, request: Request, format: Format = "html") -> Response:
        """Where a picture is dropped, pasted or chosen; the last ones below."""
        reader = reader_of(self.state.memory, request)
        recent = [
            (shown, await self.state.explain(shown, reader, None, None, measure=False))
            for shown in self.state.memory.recent(reader)
        ]

        def data() -> dict[str, Any]:
            pictures = [{"id": s.id, "card": f"/card/{s.id}", **e.prediction.to_json()} for s, e in recent]
            return {**self.state.facts(), "recent": pictures}

        def page() -> str:
            entries = [index_entry(e, f"/card/{s.id}") for s, e in recent]
            most = self.state.settings.max_upload / 1e6
            return render("home.html", **self.state.facts(), entries=entries, most=f"{most:.3g}", here="home")

        return signed(answer(format, data, page), request, reader)

    async def look(self, request: Request, format: Format = "html") -> Response:
        """Look at one picture. A browser is led to its card; the JSON twin is the card's, not yet measured."""
        picture, name = await read_upload(request, self.state.settings.max_upload)
        reader = reader_of(self.state.memory, request)
        shown = await self.state.look(picture, name, reader)
        if format == "html":
            return signed(RedirectResponse(f"/card/{shown.id}", 303), request, reader)
        made = await self.state.explain(shown, reader, None, None, measure=False)
        return signed(JSONResponse(self.state.card_json(shown, made, reader, False)), request, reader)

    async def card(
        self,
        request: Request,
        id: Id,
        target: Label = None,
        contrast: Label = None,
        measure: Annotated[bool, Query(description="Measure how faithful the heat is; about one second.")] = False,
        format: Format = "html",
    ) -> Response:
        """The card: decision, where, like what, in words; of a class, or of one class rather than another."""
        reader, shown = reader_of(self.state.memory, request), self.state.shown(id)
        target, contrast = target or None, contrast or None
        e = await self.state.explain(shown, reader, target, contrast, measure)
        measured = measure and self.state.settings.measure

        effect = await self.state.effect(reader) if format == "html" else {}

        def page() -> str:
            tools = self._tools(shown, e, reader, measured)
            return render(
                "card_page.html", **card_context(e), **tools, effect=_effect(effect), **self.state.bar("card")
            )

        return signed(answer(format, lambda: self.state.card_json(shown, e, reader, measured), page), request, reader)

    async def words(self, request: Request, id: Id, target: Label = None, contrast: Label = None) -> Response:
        """Where each sentence on the card holds, rather than those of the other class: matrix and overlay."""
        reader, shown = reader_of(self.state.memory, request), self.state.shown(id)
        found = await self.state.words(shown, reader, target or None, contrast or None)
        if isinstance(found, Missing):
            return JSONResponse({"maps": [], **found.to_json()})
        maps = []
        for one in found:
            height, width = one.heat.shape
            layer = overlay(one.heat, height * FINER, width * FINER)
            maps.append(
                {
                    "label": one.label,
                    "text": one.text,
                    "map": [[round(float(v), 6) for v in row] for row in one.heat],
                    "overlay": None if layer is None else layer_uri(layer),
                }
            )
        return JSONResponse({"maps": maps})

    async def place(
        self,
        request: Request,
        id: Id,
        row: Annotated[int, Query(ge=0, le=10_000, description="Of the cell, from the top, from 0.")],
        column: Annotated[int, Query(ge=0, le=10_000, description="Of the cell, from the left, from 0.")],
        target: Label = None,
        contrast: Label = None,
    ) -> Response:
        """What one place of the picture looks like in the user's pictures, and its share of the evidence."""
        reader, shown = reader_of(self.state.memory, request), self.state.shown(id)
        found = await self.state.place(shown, reader, (row, column), target or None, contrast or None)
        like = [
            {
                "image": Path(one.image).name,
                "label": one.label,
                "similarity": round(one.similarity, 4),
                "channel": one.channel,
                "patch": photo_uri(one.patch, 80),
            }
            for one in found.resembled
        ]
        box = [round(v, 4) for v in found.box]
        about = {"row": row, "column": column, "box": box, "share": round(found.share, 4)}
        return JSONResponse({**about, "method": found.method, "unit": found.unit, "like": like})

    async def edit(self, request: Request, id: Id, format: Format = "html") -> Response:
        """Other words for some classes; fields `label` and `texts` in turn. They last for the session."""
        reader, shown = reader_of(self.state.memory, request), self.state.shown(id)
        fields = await read_form(request)
        labels, texts = ([v for k, v in fields if k == key] for key in ("label", "texts"))
        if not labels or len(labels) != len(texts):
            raise InputError("The form must hold a field 'texts' for each field 'label'. Send both, at least once.")
        changes = {label: text.splitlines() for label, text in zip(labels, texts, strict=True)}
        found = await self.state.edit(shown, reader, changes)
        if format == "html":
            return signed(RedirectResponse(f"/card/{shown.id}{_asked(fields)}#edit", 303), request, reader)
        on_data = _effect(await self.state.effect(reader))
        return signed(JSONResponse({**found.to_json(), "on_data": on_data}), request, reader)

    async def reset(self, request: Request, id: Id, format: Format = "html") -> Response:
        """Back to the words as they were given."""
        reader, shown = reader_of(self.state.memory, request), self.state.shown(id)
        query = _asked(await read_form(request))
        await self.state.reset(reader)
        if format == "html":
            return signed(RedirectResponse(f"/card/{shown.id}{query}#edit", 303), request, reader)
        return signed(JSONResponse({"card": f"/card/{shown.id}"}), request, reader)

    async def descriptions(self, request: Request) -> Response:
        """The words as they now are, in the form that `--descriptions` and `--labels` read."""
        words = self.state.of(reader_of(self.state.memory, request)).words
        if words is None:
            raise InputError("This classifier has no descriptions. Start with --descriptions FILE.")
        return JSONResponse({label: list(texts) for label, texts in texts_of(words).items()})

    async def help(self, request: Request, format: Format = "html") -> Response:
        """Every address, in words; the same as an OpenAPI document is at /openapi.json."""
        document = request.app.openapi()
        routes = [
            {"method": method.upper(), "path": path, "says": of.get("description", "")}
            for path, methods in document["paths"].items()
            for method, of in methods.items()
        ]
        return answer(
            format, lambda: {"routes": routes}, lambda: render("help.html", routes=routes, **self.state.bar("help"))
        )

    def _tools(self, shown: Shown, e: Explanation, reader: Reader, measured: bool) -> dict[str, Any]:
        """What the page offers beside the card."""
        classifier, given = self.state.of(reader), self.state.classifier
        target = e.where.target if not isinstance(e.where, Missing) else e.prediction.label
        contrast = None if isinstance(e.where, Missing) else e.where.contrast
        assert shown.seen.features is not None
        return {
            "id": shown.id,
            "classes": classifier.classes,
            "target": target,
            "contrast": contrast,
            "measured": measured,
            "can_measure": self.state.settings.measure,
            "grid": tuple(classifier.encoder.layout.to_grid(shown.seen.features[None]).shape[2:]),
            "editable": _editable(classifier, shown, target, contrast),
            "by_words": given.decided_by_words,
            "decides": given.words is not None and words_decide(given),
            "edited": self.state.author(reader).edited is not None,
            "saved": self.state.settings.save is not None,
            "labelled": shown.label,
            "moved": self._moved(classifier, shown),
        }

    def _moved(self, classifier: Classifier, shown: Shown) -> dict[str, Any] | None:
        """What the reader's words did to this picture; ``None`` before the first edit."""
        given = self.state.classifier
        if classifier is given:
            return None
        found = moved(given, classifier, shown.seen.pooled[:1], ())
        values = [v for _, before, after in found.rows for v in (before, after)]
        low, high = min(0.0, *values), max(0.0, *values)
        span = (high - low) or 1.0
        rows = [
            (label, before, now, (before - low) / span, (min(0.0, now) - low) / span, abs(now) / span)
            for label, before, now in found.rows
        ]
        return {"by_words": found.by_words, "before": found.before, "after": found.after, "rows": rows}


def _asked(fields: list[tuple[str, str]]) -> str:
    """The comparison the card was of, as a query."""
    kept = {k: v for k, v in fields if k in ("target", "contrast") and v}
    return f"?{urlencode(kept)}" if kept else ""


def _effect(study: dict[str, Any]) -> dict[str, Any] | None:
    """What the reader's words do on labelled pictures, in short; ``None`` where that is not known."""
    if "accuracy" not in study:
        return None
    kinds = [flip["kind"] for flip in study["flips"]]
    counts = {kind: kinds.count(kind) for kind in ("broken", "mended", "other")}
    return {"n": study["n"], "accuracy": study["accuracy"], "flips": counts, "page": "/changes"}


def _editable(classifier: Classifier, shown: Shown, target: str, contrast: str | None) -> list[tuple[str, str]]:
    """The two classes of the card and their texts, one a line."""
    if classifier.words is None:
        return []
    probabilities = classifier.head.probabilities(shown.seen.pooled[:1])[0]
    one = classifier.index_of(target)
    other = runner_up(probabilities, one) if contrast is None else classifier.index_of(contrast)
    texts = texts_of(classifier.words)
    return [(classifier.classes[c], "\n".join(texts[classifier.classes[c]])) for c in dict.fromkeys((one, other))]
