"""The annotation pages: what each gathers from the desk, as HTML or as its JSON twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import FastAPI, Query
from markupsafe import Markup
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...language.annotation.desk import AnnotationDesk
from ...language.annotation.records import ATTRIBUTES, DIMENSIONS, POINTS, TASKS, check_author, objects_of
from ...language.annotation.rounds import history, text_of
from .annotate_data import Key, Name, known_picture
from .base import NOT_THERE, PAGE, Format, answer, page_route, render, said, source
from .paging import PageNumber, paged

Show = Annotated[Literal["all", "open", "finished"], Query(description="All, those not finished, or those that are.")]
Of = Annotated[Literal["writing", "comparing"], Query(description="What is looked for, or was looked for in vain.")]
PICTURES_A_PAGE = 60
TITLES = {"objects": "Objects", "caption": "The whole picture", "compare": "Compare", "history": "History"}


class AnnotationPages:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(self, desk: AnnotationDesk) -> None:
        self.desk = desk

    def mount(self, app: FastAPI) -> None:
        """Give every page its address."""
        page = page_route()
        gone = {**PAGE, **NOT_THERE}
        started = {**gone, **said(303, "No name was given; the list asks for it.")}
        app.add_api_route("/", self.home, responses=PAGE, **page)
        app.add_api_route("/objects/{key}", self.objects, responses=started, **page)
        app.add_api_route("/caption/{key}", self.caption, responses=started, **page)
        app.add_api_route("/compare/{key}", self.compare, responses=started, **page)
        app.add_api_route("/history/{key}", self.history, responses=gone, **page)
        app.add_api_route("/next", self.next, responses={**PAGE, **said(303, "It is at `location`.")}, **page)
        app.add_api_route("/figures", self.figures, responses=PAGE, **page)

    def home(
        self,
        name: Name = "",
        show: Show = "all",
        page: PageNumber = 1,
        nothing: Of | None = None,
        format: Format = "html",
    ) -> Response:
        """Pictures, how far each is, and how far all of them are together."""
        rows = self.desk.overview()
        author = _author_or_none(name)
        kept = [row for row in rows if show == "all" or (show == "finished") == bool(row["finished"])]
        number, pages, listed = paged(kept, page, PICTURES_A_PAGE)
        data = {
            "n": len(rows),
            "finished": sum(bool(row["finished"]) for row in rows),
            "begun": sum(bool(row["authors"]) and not row["finished"] for row in rows),
            "seconds": sum(row["seconds"] for row in rows),
            "show": show,
            "found": len(kept),
            "page": number,
            "pages": pages,
            "pictures": listed,
        }

        def rendered() -> str:
            asked = {"as": author or "", "show": show}
            return self._page(
                "annotate_home.html",
                author,
                **data,
                rule=self.desk.rule,
                nothing=nothing,
                link=lambda **other: f"/?{urlencode({**asked, **other})}",
            )

        return answer(format, lambda: data, rendered)

    def next(self, name: Name = "", of: Of = "writing", format: Format = "html") -> Response:
        """Leads to what waits for a person, to write or to compare; to the list when nothing does."""
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
        """Boxes, labels and descriptions of one picture's objects."""
        return self._task("objects", key, name, format)

    def caption(self, key: Key, name: Name = "", format: Format = "html") -> Response:
        """The text on one whole picture, beside what was said of its objects."""
        return self._task("caption", key, name, format)

    def _task(self, task: str, key: str, name: str, format: str) -> Response:
        picture, author = known_picture(self.desk, key), _author_or_none(name)
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
        picture, author = known_picture(self.desk, key), _author_or_none(name)
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
        picture = known_picture(self.desk, key)
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

    def figures(self, name: Name = "", format: Format = "html") -> Response:
        """How rounds go on, which texts people prefer, with intervals, and whether they agree."""
        data = self.desk.figures()
        return answer(
            format,
            lambda: data,
            lambda: self._page("annotate_figures.html", _author_or_none(name), **data),
        )

    def _page(self, template: str, author: str | None, **context: Any) -> str:
        keys = [p.key for p in self.desk.store.pictures()]
        picture = context.get("picture")
        at = keys.index(picture.key) if picture is not None else 0
        around = {"before": keys[at - 1] if at else None, "after": keys[at + 1] if at + 1 < len(keys) else None}
        style = Markup(source("annotate.css"))
        defaults = {"here": "home", "titles": TITLES, "at": at + 1, "n": len(keys), **around}
        return render(template, **{**defaults, **context, "author": author, "annotate_style": style})


def _author_or_none(name: str) -> str | None:
    return check_author(name) if name.strip() else None


def _ask_name() -> Response:
    return RedirectResponse("/", 303)
