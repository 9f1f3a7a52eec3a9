"""What the annotation pages send and fetch: drafts, rounds, comparisons, pictures, the export."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ...language.annotation.desk import AnnotationDesk
from ...language.annotation.formats import records
from ...language.annotation.records import Picture, check_author
from ...language.annotation.rounds import changes, merged, text_of
from ...language.annotation.store import Conflict
from .base import JPEG, JSON_ONLY, NOT_THERE, Jpeg, data_route, said

Key = Annotated[str, InPath(min_length=1, max_length=64, description="The picture's key, as the list names it.")]
Task = Annotated[str, InPath(pattern="^(objects|caption)$", description="objects or caption.")]
Name = Annotated[str, Query(alias="as", max_length=200, description="The annotator's name.")]
MADE_FROM_OLD = said(409, "Someone saved a newer version; the answer holds it and a merge, and nothing was changed.")


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


class AnnotationData:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(self, desk: AnnotationDesk) -> None:
        self.desk = desk

    def mount(self, app: FastAPI) -> None:
        """Give everything its address."""
        twin, data = data_route(), {**JSON_ONLY, **NOT_THERE}
        app.add_api_route("/state/{key}/{task}", self.state, responses=data, **twin)
        post: dict[str, Any] = {"methods": ["POST"], **twin}
        app.add_api_route("/draft/{key}/{task}", self.draft, responses=data, **post)
        app.add_api_route("/save/{key}/{task}", self.save, responses={**data, **MADE_FROM_OLD}, **post)
        app.add_api_route("/aside/{key}/{task}", self.aside, responses=data, **post)
        app.add_api_route("/covered/{key}", self.covered, responses=data, **post)
        app.add_api_route("/judge/{key}", self.judge, responses=data, **post)
        app.add_api_route("/picture/{key}", self.jpeg, responses=JPEG, response_class=Jpeg, response_model=None)
        lines: dict[int | str, dict[str, Any]] = {
            200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}
        }
        app.add_api_route(
            "/annotations.jsonl", self.export, responses=lines, response_class=_Lines, response_model=None
        )

    def state(self, key: Key, task: Task, name: Name = "") -> Response:
        """The last version, and one's own draft."""
        known_picture(self.desk, key)
        return JSONResponse(self.desk.state(key, task, check_author(name)))

    def draft(self, key: Key, task: Task, body: DraftBody) -> Response:
        """Keep what was typed so far; it is on the disk when this answers."""
        known_picture(self.desk, key)
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
        known_picture(self.desk, key)
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
        known_picture(self.desk, key)
        author = check_author(body.author)
        self.desk.store.put_aside(key, task, author)
        return JSONResponse(self.desk.state(key, task, author))

    def covered(self, key: Key, body: TextBody) -> Response:
        """Which objects, and which of their words, a text leaves out."""
        known_picture(self.desk, key)
        return JSONResponse({"objects": self.desk.covered(key, body.text)})

    def judge(self, key: Key, body: JudgementBody) -> Response:
        """Keep a comparison."""
        known_picture(self.desk, key)
        self.desk.judge(key, check_author(body.author), body.answers, body.token, body.seconds)
        return JSONResponse({"kept": True})

    def jpeg(self, key: Key, small: bool = False) -> Response:
        """The picture, upright, at most 1,600 pixels on a side, or 320."""
        known_picture(self.desk, key)
        return Jpeg(self.desk.jpeg(key, 320 if small else 1600))

    def export(self) -> Response:
        """All annotations, one JSON object a picture."""
        rows = records(self.desk.store, self.desk.rule)
        return _Lines("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def known_picture(desk: AnnotationDesk, key: str) -> Picture:
    """The picture of a key."""
    found = desk.store.picture(key)
    if found is None:
        raise HTTPException(404, "There is no such picture here. Go back to the list.")
    return found


class _Lines(Response):
    media_type = "application/jsonl"
