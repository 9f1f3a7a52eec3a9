"""The annotation pages: what each gathers from the desk, as HTML or as its JSON twin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi import Path as InPath
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ..annotation.desk import AnnotationDesk
from ..annotation.formats import records
from ..annotation.records import ATTRIBUTES, TASKS, Picture, check_author, objects_of
from ..annotation.rounds import changes, history, merged, text_of
from ..annotation.side_by_side import DIMENSIONS, POINTS
from ..annotation.store import Conflict
from .base import NOT_THERE, PAGE, Format, answer, render, said, source

Key = Annotated[str, InPath(min_length=1, max_length=64, description="The picture's key, as the list names it.")]
Task = Annotated[str, InPath(pattern="^(objects|caption)$", description="objects or caption.")]
Name = Annotated[str, Query(alias="as", max_length=200, description="The annotator's name.")]
JSON_ONLY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
MADE_FROM_OLD = said(409, "Someone saved a newer version; the answer holds it and a merge, and nothing was changed.")
TITLES = {"objects": "Objects", "caption": "The whole picture", "compare": "Compare", "history": "History"}


class Body(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(allow_inf_nan=False)

    author: str = Field(max_length=1000)
    seconds: float = Field(0.0, ge=0, le=1e7)


class DraftBody(Body):
    """All that was typed so far."""

    content: dict[str, Any]
    base: int = Field(ge=0, le=10**9)
    seen: int = Field(0, ge=0, le=10**9)
    tab: str = Field("", max_length=64)
    sequence: int = Field(0, ge=0, le=10**9)


class SaveBody(Body):
    """A finished round."""

    content: dict[str, Any]
    base: int = Field(ge=0, le=10**9)
    merges: bool = False


class JudgementBody(Body):
    """One comparison; scores from the left text's side."""

    answers: dict[str, int]
    token: str = Field(max_length=64)


class TextBody(BaseModel):
    """A text to check."""

    text: str = Field(max_length=20_000)


class AnnotationPages:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(self, desk: AnnotationDesk) -> None:
        self.desk = desk

    def mount(self, app: FastAPI) -> None:
        """Give every page its address."""
        page: dict[str, Any] = {"response_class": HTMLResponse, "response_model": None}
        twin: dict[str, Any] = {"response_class": JSONResponse, "response_model": None}
        gone, data = {**PAGE, **NOT_THERE}, {**JSON_ONLY, **NOT_THERE}
        started = {**gone, **said(303, "No name was given; the list asks for it.")}
        app.add_api_route("/", self.home, responses=PAGE, **page)
        app.add_api_route("/objects/{key}", self.objects, responses=started, **page)
        app.add_api_route("/caption/{key}", self.caption, responses=started, **page)
        app.add_api_route("/compare/{key}", self.compare, responses=started, **page)
        app.add_api_route("/history/{key}", self.history, responses=gone, **page)
        app.add_api_route("/preferences", self.preferences, responses=PAGE, **page)
        app.add_api_route("/state/{key}/{task}", self.state, responses=data, **twin)
        post: dict[str, Any] = {"methods": ["POST"], **twin}
        app.add_api_route("/draft/{key}/{task}", self.draft, responses=data, **post)
        app.add_api_route("/save/{key}/{task}", self.save, responses={**data, **MADE_FROM_OLD}, **post)
        app.add_api_route("/aside/{key}/{task}", self.aside, responses=data, **post)
        app.add_api_route("/covered/{key}", self.covered, responses=data, **post)
        app.add_api_route("/judge/{key}", self.judge, responses=data, **post)
        image: dict[int | str, dict[str, Any]] = {
            200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
            **NOT_THERE,
        }
        app.add_api_route("/picture/{key}", self.jpeg, responses=image, response_class=_Jpeg, response_model=None)
        lines: dict[int | str, dict[str, Any]] = {
            200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}
        }
        app.add_api_route(
            "/annotations.jsonl", self.export, responses=lines, response_class=_Lines, response_model=None
        )

    # pages

    def home(self, name: Name = "", format: Format = "html") -> Response:
        """All pictures, how far each is, and what comes next."""
        rows = self.desk.overview()
        author = _author_or_none(name)

        def page() -> str:
            done = sum(row["finished"] is not None for row in rows)
            return self._page("annotate_home.html", author, rows=rows, done=done, rule=self.desk.rule)

        return answer(format, lambda: {"pictures": rows, "finished": sum(bool(r["finished"]) for r in rows)}, page)

    def objects(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """Boxes, labels and descriptions of one picture's objects."""
        return self._task("objects", key, name, format)

    def caption(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """The text on one whole picture, beside what was said of its objects."""
        return self._task("caption", key, name, format)

    def _task(self, task: str, key: str, name: str, format: str) -> Response:
        picture, author = self._picture(key), _author_or_none(name)
        if author is None:
            return _ask_name()
        self.desk.seed(key)
        state = self.desk.state(key, task, author)
        latest = self.desk.store.latest(key, "objects")
        objects = [o.to_json() for o in objects_of(latest.content)] if latest else []
        data = {
            **state,
            "key": key,
            "author": author,
            "image": Path(picture.name).name,
            "attributes": list(ATTRIBUTES.items()),
        }

        def page() -> str:
            versions = self.desk.store.versions(key, task)
            return self._page(
                f"annotate_{task}.html",
                author,
                picture=picture,
                data=data,
                objects=objects,
                rounds=len([v for v in versions if v.kind != "seed"]),
                covered=self.desk.covered(key, text_of(state["content"])) if task == "caption" else [],
                here=task,
            )

        return answer(format, lambda: {**data, "objects": objects}, page)

    def compare(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """Two texts on one picture, left and right by chance, without saying whose they are."""
        picture, author = self._picture(key), _author_or_none(name)
        if author is None:
            return _ask_name()
        pair = self.desk.comparison(key, author)
        data = {"key": key, "author": author, "pair": pair}

        def page() -> str:
            return self._page(
                "annotate_compare.html",
                author,
                picture=picture,
                data=data,
                pair=pair,
                dimensions=DIMENSIONS,
                points=POINTS,
                here="compare",
            )

        return answer(format, lambda: data, page)

    def history(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """Every version of one picture, with what it changed, by whom, and how long it took."""
        picture = self._picture(key)
        rows = {task: history(self.desk.store.versions(key, task)) for task in TASKS}
        return answer(
            format,
            lambda: rows,
            lambda: self._page(
                "annotate_history.html",
                _author_or_none(name),
                picture=picture,
                rows=rows,
                titles=TITLES,
                here="history",
            ),
        )

    def preferences(self, name: Name = "", format: Format = "html") -> Response:
        """Net preference for the last round, by dimension, with bootstrap intervals."""
        found = self.desk.preferences()

        def page() -> str:
            return self._page("annotate_preferences.html", _author_or_none(name), found=found)

        data = {k: {d: net.to_json() for d, net in nets.items()} for k, nets in found.items()}
        return answer(format, lambda: {"against": data}, page)

    # what pages send

    def state(self, key: Key, task: Task, name: Name = "") -> Response:
        """The last version, and one's own draft."""
        self._picture(key)
        return JSONResponse(self.desk.state(key, task, check_author(name)))

    def draft(self, key: Key, task: Task, body: DraftBody) -> Response:
        """Keep what was typed so far; it is on the disk when this answers."""
        self._picture(key)
        revision, shelved = self.desk.store.keep_draft(
            key,
            task,
            body.author,
            body.content,
            body.base,
            body.seconds,
            body.seen,
            tab=body.tab,
            sequence=body.sequence,
        )
        return JSONResponse({"revision": revision, "shelved": shelved})

    def save(self, key: Key, task: Task, body: SaveBody) -> Response:
        """End a round. Where someone else was faster, nothing is overwritten: the answer (409) holds both, merged."""
        self._picture(key)
        store = self.desk.store
        done = store.save(key, task, body.author, body.content, body.base, body.seconds, merges=body.merges)
        if not isinstance(done, Conflict):
            versions = store.versions(key, task)
            return JSONResponse({"number": done.version.number, "finished": self.desk.rule.finished(versions)})
        author = check_author(body.author)
        here = store.draft(key, task, author)
        store.keep_draft(key, task, author, body.content, body.base, body.seconds, here.revision if here else 0)
        store.put_aside(key, task, author, stays=True)
        by_number = {v.number: v.content for v in store.versions(key, task)}
        base = by_number.get(body.base, {})
        content, clash = merged(task, base, done.latest.content, body.content)
        said_by = {"author": done.latest.author, "number": done.latest.number, "content": done.latest.content}
        theirs = changes(text_of(base), text_of(done.latest.content))
        draft = store.draft(key, task, author)
        answered = {
            "error": f"{done.latest.author} saved version {done.latest.number} while you were writing.",
            "latest": said_by,
            "changes": [list(c) for c in theirs],
            "merged": content,
            "clash": clash,
            "revision": draft.revision if draft else 0,
        }
        return JSONResponse(answered, 409)

    def aside(self, key: Key, task: Task, body: Body) -> Response:
        """Put one's draft aside and begin from the last version again; the draft stays on the shelf."""
        self._picture(key)
        author = check_author(body.author)
        self.desk.store.put_aside(key, task, author)
        return JSONResponse(self.desk.state(key, task, author))

    def covered(self, key: Key, body: TextBody) -> Response:
        """Which objects, and which of their words, a text leaves out."""
        self._picture(key)
        return JSONResponse({"objects": self.desk.covered(key, body.text)})

    def judge(self, key: Key, body: JudgementBody) -> Response:
        """Keep a comparison."""
        self._picture(key)
        self.desk.judge(key, check_author(body.author), body.answers, body.token, body.seconds)
        return JSONResponse({"kept": True})

    # files

    def jpeg(self, key: Key, small: bool = False) -> Response:
        """The picture, upright, at most 1,600 pixels on a side, or 320."""
        self._picture(key)
        return _Jpeg(self.desk.jpeg(key, 320 if small else 1600))

    def export(self) -> Response:
        """All annotations, one JSON object a picture."""
        rows = records(self.desk.store, self.desk.rule)
        return _Lines("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def _picture(self, key: str) -> Picture:
        found = self.desk.store.picture(key)
        if found is None:
            raise HTTPException(404, "There is no such picture here. Go back to the list.")
        return found

    def _page(self, template: str, author: str | None, **context: Any) -> str:
        keys = [p.key for p in self.desk.store.pictures()]
        picture = context.get("picture")
        at = keys.index(picture.key) if picture is not None else 0
        around = {"before": keys[at - 1] if at else None, "after": keys[at + 1] if at + 1 < len(keys) else None}
        style = Markup(source("annotate.css"))
        defaults = {"here": "home", "titles": TITLES, "at": at + 1, "n": len(keys), **around}
        return render(template, **{**defaults, **context, "author": author, "annotate_style": style})


class _Jpeg(Response):
    media_type = "image/jpeg"


class _Lines(Response):
    media_type = "application/jsonl"


def _author_or_none(name: str) -> str | None:
    return check_author(name) if name.strip() else None


def _ask_name() -> Response:
    return RedirectResponse("/", 303)
