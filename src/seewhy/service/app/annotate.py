"""The annotation pages as an ASGI app: ``seewhy app --annotate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import FastAPI, Query
from fastapi import Path as InPath
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...language.annotation.desk import AnnotationDesk, lines
from ...language.annotation.records import ATTRIBUTES, DIMENSIONS, POINTS, TASKS, Picture, check_author, objects_of
from ...language.annotation.rounds import changes, history, merged, text_of
from ...language.annotation.store import Conflict
from .base import (
    JPEG,
    JSON_LINES,
    Format,
    PageNumber,
    add_data,
    add_file,
    add_page,
    answer,
    at_most,
    make_base,
    paged,
    render,
    source,
)
from .deciding import Key
from .settings import Settings

SCRIPTS = ("annotate.js", "annotate_boxes.js", "annotate_compare.js")
Task = Annotated[str, InPath(pattern="^(objects|caption)$", description="objects or caption.")]
Name = Annotated[str, Query(alias="as", max_length=200, description="The annotator's name.")]
Show = Annotated[Literal["all", "open", "finished"], Query(description="Which pictures: all, unfinished or finished.")]
Of = Annotated[Literal["writing", "comparing"], Query(description="Which task to find.")]
PICTURES_A_PAGE = 60
MOST_ANSWERS = 100
TITLES = {"objects": "Objects", "caption": "The whole picture", "compare": "Compare", "history": "History"}


class Body(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    author: str = Field(max_length=1000)
    seconds: float = Field(0.0, ge=0, le=1e7)


class SaveBody(Body):
    content: dict[str, Any]
    base: int = Field(ge=0, le=10**9)
    merges: bool = False


class DraftBody(SaveBody):
    seen: int = Field(0, ge=0, le=10**9)
    tab: str = Field("", max_length=64)
    sequence: int = Field(0, ge=0, le=10**9)


class JudgementBody(Body):
    answers: Annotated[dict[str, int], at_most(MOST_ANSWERS)]
    token: str = Field(max_length=64)


class TextBody(BaseModel):
    text: str = Field(max_length=20_000)


class AnnotationPages:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(self, desk: AnnotationDesk) -> None:
        self.desk = desk

    def mount(self, app: FastAPI) -> None:
        post: dict[str, Any] = {"methods": ["POST"]}
        add_page(app, "/", self.home)
        add_page(app, "/objects/{key}", self.objects)
        add_page(app, "/caption/{key}", self.caption)
        add_page(app, "/compare/{key}", self.compare)
        add_page(app, "/history/{key}", self.history)
        add_page(app, "/next", self.next)
        add_page(app, "/figures", self.figures)
        add_data(app, "/draft/{key}/{task}", self.draft, **post)
        add_data(app, "/save/{key}/{task}", self.save, **post)
        add_data(app, "/aside/{key}/{task}", self.aside, **post)
        add_data(app, "/covered/{key}", self.covered, **post)
        add_data(app, "/judge/{key}", self.judge, **post)
        add_file(app, "/picture/{key}", self.jpeg, JPEG)
        add_file(app, "/annotations.jsonl", self.export, JSON_LINES)

    def home(
        self,
        name: Name = "",
        show: Show = "all",
        page: PageNumber = 1,
        nothing: Of | None = None,
        format: Format = "html",
    ) -> Response:
        """All pictures, with their progress."""
        rows = self.desk.overview()
        author = _author_or_none(name)
        kept = [row for row in rows if show == "all" or (show == "finished") == bool(row["finished"])]
        number, pages, listed = paged(kept, page, PICTURES_A_PAGE)
        data = {
            "n": len(rows), "finished": sum(bool(row["finished"]) for row in rows),
            "begun": sum(bool(row["authors"]) and not row["finished"] for row in rows),
            "seconds": sum(row["seconds"] for row in rows), "show": show, "found": len(kept), "page": number,
            "pages": pages, "pictures": listed,
        }  # fmt: skip
        asked = {"as": author or "", "show": show}
        about = {"rule": self.desk.rule, "nothing": nothing, "link": lambda **more: f"/?{urlencode({**asked, **more})}"}
        return self._answer(format, data, "annotate_home.html", author, **data, **about)

    def next(self, name: Name = "", of: Of = "writing", format: Format = "html") -> Response:
        """Redirect to the next picture to annotate or compare, or to the list if there is none."""
        author = check_author(name)
        if of == "comparing":
            key = self.desk.next_comparison(author)
            task = None if key is None else "compare"
        else:
            key, task = self.desk.next_for(author) or (None, None)
        page = "/" if key is None else f"/{task}/{key}"
        if format == "json":
            return JSONResponse({"picture": key, "task": task, "page": page})
        nothing = {} if key is not None else {"nothing": of}
        return RedirectResponse(f"{page}?{urlencode({'as': author, **nothing})}", 303)

    def objects(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """Boxes, labels and descriptions of the objects in a picture."""
        return self._task("objects", key, name, format)

    def caption(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """The caption of a picture, with the descriptions of its objects."""
        return self._task("caption", key, name, format)

    def _task(self, task: str, key: str, name: str, format: str) -> Response:
        picture, author = known_picture(self.desk, key), _author_or_none(name)
        if author is None:
            return RedirectResponse("/", 303)
        self.desk.seed(key)
        state = self.desk.state(key, task, author)
        latest = self.desk.store.latest(key, "objects")
        objects = [o.to_json() for o in objects_of(latest.content)] if latest else []
        image, attributes = Path(picture.name).name, list(ATTRIBUTES.items())
        data = {**state, "key": key, "author": author, "image": image, "attributes": attributes}
        about = {
            "picture": picture, "data": data, "objects": objects,
            "rounds": len([v for v in self.desk.store.versions(key, task) if v.kind != "seed"]),
            "covered": self.desk.covered(key, text_of(state["content"])) if task == "caption" else [], "here": task,
        }  # fmt: skip
        return self._answer(format, {**data, "objects": objects}, f"annotate_{task}.html", author, **about)

    def compare(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """Two texts on one picture, in random order and without the authors' names."""
        picture, author = known_picture(self.desk, key), _author_or_none(name)
        if author is None:
            return RedirectResponse("/", 303)
        pair = self.desk.comparison(key, author)
        data = {"key": key, "author": author, "pair": pair}
        about = {"picture": picture, "data": data, "pair": pair, "dimensions": DIMENSIONS, "points": POINTS}
        return self._answer(format, data, "annotate_compare.html", author, **about, here="compare")

    def history(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """Every version for one picture: its changes, its author and the seconds of work."""
        picture, author = known_picture(self.desk, key), _author_or_none(name)
        rows = {task: history(self.desk.store.versions(key, task)) for task in TASKS}
        return self._answer(format, rows, "annotate_history.html", author, picture=picture, rows=rows, here="history")

    def figures(self, name: Name = "", format: Format = "html") -> Response:
        """Metrics by round, preferred texts with intervals, and the agreement between people."""
        data = self.desk.figures()
        return self._answer(format, data, "annotate_figures.html", _author_or_none(name), **data)

    def _answer(self, format: str, twin: Any, template: str, author: str | None, **context: Any) -> Response:
        def page() -> str:
            keys, picture = [p.key for p in self.desk.store.pictures()], context.get("picture")
            at = keys.index(picture.key) if picture is not None else 0
            around = {"before": keys[at - 1] if at else None, "after": keys[at + 1] if at + 1 < len(keys) else None}
            style = Markup(source("annotate.css"))
            defaults = {"here": "home", "titles": TITLES, "at": at + 1, "n": len(keys), **around}
            return render(template, **{**defaults, **context, "author": author, "annotate_style": style})

        return answer(format, lambda: twin, page)

    def draft(self, key: Key, task: Task, body: DraftBody) -> Response:
        """Save a draft to the disk."""
        known_picture(self.desk, key)
        written = (body.author, body.content, body.base, body.seconds, body.seen)
        revision, shelved = self.desk.store.keep_draft(key, task, *written, tab=body.tab, sequence=body.sequence)
        return JSONResponse({"revision": revision, "shelved": shelved})

    def save(self, key: Key, task: Task, body: SaveBody) -> Response:
        """Finish a round. If somebody else saved first, the answer (409) has both texts, merged."""
        known_picture(self.desk, key)
        store = self.desk.store
        done = store.save(key, task, body.author, body.content, body.base, body.seconds, merges=body.merges)
        if not isinstance(done, Conflict):
            versions = store.versions(key, task)
            return JSONResponse({"number": done.number, "finished": self.desk.rule.finished(versions)})
        author, latest = check_author(body.author), done.latest
        here = store.draft(key, task, author)
        store.keep_draft(key, task, author, body.content, body.base, body.seconds, here.revision if here else 0)
        store.put_aside(key, task, author, stays=True)
        base = {v.number: v.content for v in store.versions(key, task)}.get(body.base, {})
        content, clash = merged(task, base, latest.content, body.content)
        draft = store.draft(key, task, author)
        answered = {
            "error": f"{latest.author} saved version {latest.number} while you were writing.",
            "latest": {"author": latest.author, "number": latest.number, "content": latest.content},
            "changes": [list(c) for c in changes(text_of(base), text_of(latest.content))],
            "merged": content,
            "clash": clash,
            "revision": draft.revision if draft else 0,
        }
        return JSONResponse(answered, 409)

    def aside(self, key: Key, task: Task, body: Body) -> Response:
        """Put a draft aside and start again from the latest version. The draft is kept."""
        known_picture(self.desk, key)
        author = check_author(body.author)
        self.desk.store.put_aside(key, task, author)
        return JSONResponse(self.desk.state(key, task, author))

    def covered(self, key: Key, body: TextBody) -> Response:
        """The objects, and the words of their descriptions, that a text does not mention."""
        known_picture(self.desk, key)
        return JSONResponse({"objects": self.desk.covered(key, body.text)})

    def judge(self, key: Key, body: JudgementBody) -> Response:
        """Save a comparison."""
        known_picture(self.desk, key)
        self.desk.judge(key, check_author(body.author), body.answers, body.token, body.seconds)
        return JSONResponse({"kept": True})

    def jpeg(self, key: Key, small: bool = False) -> Response:
        """The upright picture, at most 1,600 pixels on the longer side, or 320 for a thumbnail."""
        known_picture(self.desk, key)
        return Response(self.desk.jpeg(key, 320 if small else 1600), media_type=JPEG)

    def export(self) -> Response:
        """All annotations, one JSON object per picture."""
        return Response(lines(self.desk.store, self.desk.rule), media_type=JSON_LINES)


def make_annotation_app(desk: AnnotationDesk, settings: Settings | None = None) -> FastAPI:
    """Return an app in which people annotate pictures in rounds."""
    app = make_base("SeeWhy annotation", settings or Settings(), SCRIPTS)
    AnnotationPages(desk).mount(app)
    return app


def known_picture(desk: AnnotationDesk, key: str) -> Picture:
    found = desk.store.picture(key)
    if found is None:
        raise HTTPException(404, "There is no picture at this address. Go back to the list of pictures.")
    return found


def _author_or_none(name: str) -> str | None:
    return check_author(name) if name.strip() else None
