"""The pages of the app, as HTML or JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Query
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ...classifiers.base import Classifier
from ...classifiers.words import texts_of, words_decide
from ...errors import DataError, InputError
from ...evidence.like import Place, like_place
from ...evidence.words import WordMap, word_maps
from ...explanation.base import Explanation
from ...explanation.verdict import Missing
from ...language.annotation.labels import KEY, Corrections
from ...report import index_entry
from ...report.card import card_context
from ...report.documents import edit_document
from ...report.page import document_context, layer_uri, photo_uri
from ...report.palette import overlay
from ...studies.inspection.check import NAME as CHECK
from ...studies.inspection.check import read_check
from .base import (
    JPEG,
    UPLOAD_BODY,
    Format,
    Index,
    PageNumber,
    add_data,
    add_file,
    add_page,
    answer,
    form_with,
    make_base,
    read_form,
    read_uploads,
    render,
)
from .browse import SCRIPT as BROWSE
from .browse import Browse
from .deciding import SCRIPT, Deciding
from .heats import Heats
from .map import SCRIPTS as MAP
from .map import Map
from .mistakes import Listing, Mistakes, Order
from .next import SCRIPT as NEXT
from .next import Next
from .refitting import Refitting
from .rows import Rows, name_of
from .state import Moved, Reader, Shown, State, classes_of, moved, signed, with_texts
from .tiles import square

THUMBNAIL_SIDE = 160
FINER = 12
"""Overlay pixels per grid cell; the browser smooths them."""
THUMBS_A_PAIR = 12
Id = Annotated[str, InPath(min_length=1, max_length=64, description="The picture's id, as `POST /look` gives it.")]
Label = Annotated[str | None, Query(max_length=500, description="One of the classes. Default: the predicted one.")]
OneOf = Annotated[str, Query(max_length=500, description="One of the classes. Default: all.")]
Listed = Annotated[
    Order | None,
    Query(
        description="Grouped by pair of classes, or picture by picture. Default: picture by picture if a pair is given."
    ),
]
FORM_BODY = form_with(
    {
        "label": {"type": "string", "description": "A class."},
        "texts": {"type": "string", "description": "All of its descriptions, one per line."},
    },
    "application/x-www-form-urlencoded",
)

_logger = logging.getLogger("seewhy")


class Pages:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(self, state: State) -> None:
        self.state = state

    def mount(self, app: FastAPI) -> None:
        post: dict[str, Any] = {"methods": ["POST"]}
        add_page(app, "/", self.home)
        add_page(app, "/look", self.look, openapi_extra=UPLOAD_BODY, **post)
        add_page(app, "/card/{id}", self.card)
        add_file(app, "/card/{id}/thumbnail", self.small, JPEG)
        add_data(app, "/card/{id}/words", self.words)
        add_data(app, "/card/{id}/place", self.place)
        add_page(app, "/card/{id}/edit", self.edit, openapi_extra=FORM_BODY, **post)
        add_page(app, "/card/{id}/reset", self.reset, **post)
        add_data(app, "/descriptions", self.descriptions)
        add_page(app, "/mistakes", self.mistakes)
        add_page(app, "/changes", self.changes)
        add_page(app, "/sample/{index}", self.sample)
        add_file(app, "/sample/{index}/thumbnail", self.thumbnail, JPEG)
        add_page(app, "/help", self.help)

    async def home(self, request: Request, format: Format = "html") -> Response:
        """The start page, to drop, paste or choose a picture. It lists recent pictures."""
        state, reader = self.state, self.state.reader(request)
        recent = [(shown, await state.explain(shown, reader)) for shown in state.recent(reader)]
        classifier = state.classifier
        about = {"model": classifier.provenance(), "n_classes": len(classifier.classes)}
        about |= {"words": classifier.words is not None, "browse": state.rows is not None}

        def data() -> dict[str, Any]:
            pictures = [{"id": s.id, "card": f"/card/{s.id}", **e.prediction.to_json()} for s, e in recent]
            return {**about, "recent": pictures}

        def page() -> str:
            entries = [index_entry(e, f"/card/{s.id}") for s, e in recent]
            most = f"{state.settings.max_upload / 1e6:.3g}"
            return render("home.html", **{**about, **state.bar("home")}, entries=entries, most=most)

        return signed(answer(format, data, page), request, reader)

    async def look(self, request: Request, format: Format = "html") -> Response:
        """Explain one picture. A browser is redirected to the card; with JSON, the answer is the card, without the
        measure of faithfulness.
        """
        ((picture, name),) = await read_uploads(request, self.state.settings.max_upload, 1)
        reader = self.state.reader(request)
        shown = self.state.keep(await self.state.see(picture, name), reader)
        return await self._redirect(shown, request, reader, format)

    async def sample(self, request: Request, index: Index, format: Format = "html") -> Response:
        """Explain one of the pictures of `--data`, given by its index."""
        sample, reader = self.state.sample(index), self.state.reader(request)
        shown = self.state.keep(await self.state.see_sample(index), reader, sample.label)
        return await self._redirect(shown, request, reader, format)

    async def _redirect(self, shown: Shown, request: Request, reader: Reader, format: str) -> Response:
        if format == "html":
            return signed(RedirectResponse(f"/card/{shown.id}", 303), request, reader)
        made = await self.state.explain(shown, reader)
        return signed(JSONResponse(self.state.card_json(shown, made, reader, False)), request, reader)

    async def card(
        self,
        request: Request,
        id: Id,
        target: Label = None,
        contrast: Label = None,
        measure: Annotated[bool, Query(description="Measure how faithful the heat is (about one second).")] = False,
        format: Format = "html",
    ) -> Response:
        """The card: prediction, heat map, similar patches and descriptions, for one class or two classes compared."""
        state, reader, shown = self.state, self.state.reader(request), self.state.shown(id)
        e = await state.explain(shown, reader, target or None, contrast or None, measure)
        measured = measure and state.settings.measure
        effect = await state.effect(reader) if format == "html" else {}

        def page() -> str:
            tools = self._tools(shown, e, reader, measured)
            return render("card_page.html", **card_context(e), **tools, effect=_effect(effect), **state.bar("card"))

        return signed(answer(format, lambda: state.card_json(shown, e, reader, measured), page), request, reader)

    async def words(self, request: Request, id: Id, target: Label = None, contrast: Label = None) -> Response:
        """Maps of where each description on the card fits better than the descriptions of the other class, each as a
        matrix and an overlay.
        """
        seen = self.state.shown(id).seen
        classifier = self.state.of(self.state.reader(request))

        def make() -> tuple[WordMap, ...] | Missing:
            one, other, _ = classes_of(classifier, seen, target or None, contrast or None)
            assert seen.features is not None
            grid = classifier.encoder.layout.to_grid(seen.features[None])[0]
            return word_maps(classifier, grid, seen.pooled[0], one, other)

        found = await self.state.compute(make)
        if isinstance(found, Missing):
            return JSONResponse({"maps": [], **found.to_json()})
        maps = []
        for label, text, heat in found:
            layer = overlay(heat, heat.shape[0] * FINER, heat.shape[1] * FINER)
            rows = [[round(float(v), 6) for v in row] for row in heat]
            uri = None if layer is None else layer_uri(layer)
            maps.append({"label": label, "text": text, "map": rows, "overlay": uri})
        return JSONResponse({"maps": maps})

    async def place(
        self,
        request: Request,
        id: Id,
        row: Annotated[int, Query(ge=0, le=10_000, description="Row of the grid cell, from the top, starting at 0.")],
        column: Annotated[
            int, Query(ge=0, le=10_000, description="Column of the grid cell, from the left, starting at 0.")
        ],
        target: Label = None,
        contrast: Label = None,
    ) -> Response:
        """The most similar patches of your pictures for one grid cell, and its share of the evidence."""
        seen = self.state.shown(id).seen
        classifier = self.state.of(self.state.reader(request))

        def make() -> Place:
            one, _, against = classes_of(classifier, seen, target or None, contrast or None)
            return like_place(classifier, seen, (row, column), one, against)

        place = await self.state.compute(make)
        like = [
            {**one.to_json(), "image": name_of(one.image), "patch": photo_uri(one.patch, 80)} for one in place.resembled
        ]
        return JSONResponse({"row": row, "column": column, **place.to_json(), "like": like})

    async def edit(self, request: Request, id: Id, format: Format = "html") -> Response:
        """Replace the descriptions of some classes, for this session. Send a field `texts` after each field `label`."""
        reader, shown = self.state.reader(request), self.state.shown(id)
        fields = await read_form(request)
        labels, texts = ([v for k, v in fields if k == key] for key in ("label", "texts"))
        if not labels or len(labels) != len(texts):
            raise InputError(
                f"The form must have one field 'texts' for each field 'label', got {len(labels)} fields "
                f"'label' and {len(texts)} fields 'texts'."
            )
        changes = {label: text.splitlines() for label, text in zip(labels, texts, strict=True)}
        state = self.state

        def make() -> Moved:
            edited = with_texts(state.of(reader), changes, state.store)
            state.take_words(reader, edited)
            state.remember(reader)
            return moved(state.classifier, edited, shown.seen.pooled[:1], list(changes))

        result = await state.compute(make)
        if format == "html":
            return signed(RedirectResponse(f"/card/{shown.id}{_compared(fields)}#edit", 303), request, reader)
        on_data = _effect(await state.effect(reader))
        return signed(JSONResponse({**result.to_json(), "on_data": on_data}), request, reader)

    async def reset(self, request: Request, id: Id, format: Format = "html") -> Response:
        """Restore the original descriptions."""
        state, reader, shown = self.state, self.state.reader(request), self.state.shown(id)
        query = _compared(await read_form(request))
        await state.compute(lambda: state.take_words(reader, None))
        if format == "html":
            return signed(RedirectResponse(f"/card/{shown.id}{query}#edit", 303), request, reader)
        return signed(JSONResponse({"card": f"/card/{shown.id}"}), request, reader)

    async def descriptions(self, request: Request) -> Response:
        """The current descriptions, in the format of `--descriptions` and `--labels`."""
        words = self.state.of(self.state.reader(request)).words
        if words is None:
            raise InputError("This classifier has no descriptions. Start the page with --descriptions FILE.")
        return JSONResponse({label: list(texts) for label, texts in texts_of(words).items()})

    async def mistakes(
        self,
        true: OneOf = "",
        predicted: OneOf = "",
        order: Listed = None,
        page: PageNumber = 1,
        format: Format = "html",
    ) -> Response:
        """The mistakes on the pictures of `--data` so far, by pair of classes or picture by picture."""
        state, found = self.state, None if self.state.rows is None else Mistakes(self.state.rows)
        listing = Listing(true or None, predicted or None, order or ("surest" if true and predicted else "pairs"), page)
        data = {"n": 0, "confusions": [], "pictures": []} if found is None else found.to_json(listing)

        def rendered() -> str:
            kept = {"true": true, "predicted": predicted, "order": listing.order}
            return render(
                "mistakes.html",
                found=data,
                asked=listing,
                labels=() if found is None else found.labels,
                classes=state.classifier.classes,
                most=THUMBS_A_PAIR,
                corrections=state.corrections,
                link=lambda **other: f"/mistakes?{urlencode({k: v for k, v in {**kept, **other}.items() if v})}",
                **state.bar("mistakes"),
            )

        return answer(format, lambda: data, rendered)

    async def changes(self, request: Request, format: Format = "html") -> Response:
        """The effect of the reader's edited descriptions on the pictures of `--data`: overall, by group, by picture."""
        data = await self.state.effect(self.state.reader(request))

        def rendered() -> str:
            missing = data if "missing" in data else None
            about = {} if missing else document_context(edit_document(data))
            return render("changes.html", missing=missing, **about, **self.state.bar("changes"))

        return answer(format, lambda: data, rendered)

    def small(self, id: Id) -> Response:
        """A thumbnail of a picture in memory."""
        picture = self.state.shown(id).seen.picture
        assert picture is not None
        return Response(square(picture.pixels), media_type=JPEG)

    async def thumbnail(self, index: Index) -> Response:
        """A thumbnail of one of the pictures of `--data`."""
        state, path = self.state, self.state.sample(index).image
        if state.rows is not None and (tile := await asyncio.to_thread(state.rows.tile, index)):
            return Response(tile, media_type=JPEG)  # as it was predicted, whatever the file is now
        transform = state.classifier.encoder.transform
        picture = await asyncio.wrap_future(state.worker.decoder.read(path, name_of(path), transform))
        return Response(square(picture.pixels, THUMBNAIL_SIDE, 80), media_type=JPEG)

    async def help(self) -> Response:
        """How to use a card. /openapi.json lists every address."""
        return HTMLResponse(render("help.html", **self.state.bar("help")))

    def _tools(self, shown: Shown, e: Explanation, reader: Reader, measured: bool) -> dict[str, Any]:
        state, classifier = self.state, self.state.of(reader)
        given = state.classifier
        target = e.where.target if not isinstance(e.where, Missing) else e.prediction.label
        contrast = None if isinstance(e.where, Missing) else e.where.contrast
        assert shown.seen.features is not None
        return {
            "id": shown.id,
            "classes": classifier.classes,
            "target": target,
            "contrast": contrast,
            "measured": measured,
            "can_measure": state.settings.measure,
            "grid": tuple(classifier.encoder.layout.to_grid(shown.seen.features[None]).shape[2:]),
            "editable": _editable(classifier, shown, target, contrast),
            "by_words": given.decided_by_words,
            "decides": given.words is not None and words_decide(given),
            "edited": reader.edited is not None,
            "labelled": shown.label,
            "like": shown.id if shown.label is None else shown.seen.digest[:KEY],
            "moved": None if classifier is given else moved(given, classifier, shown.seen.pooled[:1], ()),
        }


def _compared(fields: list[tuple[str, str]]) -> str:
    kept = {k: v for k, v in fields if k in ("target", "contrast") and v}
    return f"?{urlencode(kept)}" if kept else ""


def _effect(study: dict[str, Any]) -> dict[str, Any] | None:
    if "accuracy" not in study:
        return None
    kinds = [flip["kind"] for flip in study["flips"]]
    counts = {kind: kinds.count(kind) for kind in ("broken", "mended", "other")}
    note = (study.get("fitted_on") or {}).get("sentence", "")
    return {"fitted_on": note, "n": study["n"], "accuracy": study["accuracy"], "flips": counts, "page": "/changes"}


def _editable(classifier: Classifier, shown: Shown, target: str, contrast: str | None) -> list[tuple[str, str]]:
    if classifier.words is None:
        return []
    one, other, _ = classes_of(classifier, shown.seen, target, contrast)
    texts = texts_of(classifier.words)
    return [(classifier.classes[c], "\n".join(texts[classifier.classes[c]])) for c in dict.fromkeys((one, other))]


def _read_check(rows: Rows, corrections: Corrections) -> None:
    """Show the findings of a check in the folder of the decisions, if it is of the same data."""
    folder, data = corrections.decisions.store.path.parent, corrections.data
    if not (folder / CHECK).is_file():
        return
    try:
        rows.read_check(read_check(folder, data.path, data.items)["findings"])
    except DataError as error:
        _logger.warning("The findings of the check in %s are not shown. %s", folder, error)


def make(state: State, sources: Sequence[Path]) -> FastAPI:
    """Make the app; see :func:`seewhy.service.app.make_app`."""
    chart = None if state.rows is None else Map(state)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        if state.rows is not None:
            state.rows.start()
        yield
        if chart is not None:
            chart.arrangement.close()
        state.worker.close()

    scripts = ("app.js", "card.js", SCRIPT, "heat.js", BROWSE, "refit.js", NEXT, *MAP)
    app = make_base("SeeWhy", state.settings, scripts, version=version("seewhy"), lifespan=life)
    Pages(state).mount(app)
    if state.rows is not None and chart is not None:
        Browse(state, sources).mount(app)
        Heats(state).mount(app)
        chart.mount(app)
        Next(state).mount(app)
    if state.corrections is not None and state.rows is not None:
        Deciding(state.corrections, state.rows.of_key).mount(app)
        Refitting(state).mount(app)
        _read_check(state.rows, state.corrections)
    app.state.seewhy = state
    return app
