"""A grid of all labelled pictures that can be sorted, filtered and searched."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from torch.nn.functional import normalize

from ...errors import DataError, InputError
from ...heads.head import Projected
from ...language.annotation.labels import Corrections, as_row, known_picture
from ...language.annotation.store import Saved
from ...printable import spreadsheet_safe
from ...studies.inspection.check import KINDS
from .base import CSV, Format, add_data, add_file, add_page, answer, render
from .folders import Folders
from .rows import MOST_ROWS, READ, SORTS, VERDICTS, Rows, View
from .tiles import packed
from .worker import SOON

SCRIPT = "browse.js"
PACKED = "application/octet-stream"
LIST = "selection.csv"
MOST_DECISIONS = 2000
"""Maximum number of decisions in one request."""
MOST_TILES = 200
"""Maximum number of tiles in one answer."""
Text = Annotated[str, Query(max_length=1000)]
Chance = Annotated[float, Query(ge=0, le=1)]
Places = Annotated[str, Query(max_length=400_000, description="Indices of pictures, separated by commas.")]


class ManyBody(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    author: str = Field(max_length=1000, description="Who decides.")
    decision: Literal["corrected", "confirmed", "later", "dropped", "undo"] = Field(
        description="The decision on all of the pictures."
    )
    label: str = Field("", max_length=1000, description="The new label, if the decision is `corrected`.")
    places: list[int] = Field(max_length=MOST_DECISIONS, description="Indices of pictures.")
    bases: dict[int, int] = Field(
        default_factory=dict,
        description="By picture: the number of its latest decision that the client has seen, if any.",
    )


class ListBody(BaseModel):
    places: list[int] = Field(min_length=1, description="Indices of pictures.")


class Browse:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(
        self, rows: Rows, compute: Callable[..., Any], corrections: Corrections | None, bar: Callable[..., Any]
    ) -> None:
        self.rows = rows
        self._compute = compute
        self._corrections = corrections
        self._bar = bar
        self._folders = Folders(sample.image for sample in rows.items)
        self._matched: tuple[str, int, np.ndarray] | None = None

    def mount(self, app: FastAPI) -> None:
        add_page(app, "/browse", self.page)
        add_data(app, "/rows", self.listing)
        add_file(app, "/tiles", self.tiles, PACKED)
        add_file(app, f"/{LIST}", self.list, CSV)
        add_file(app, f"/{LIST}", self.list_many, CSV, methods=["POST"])
        if self._corrections is not None:
            add_data(app, "/decide-many", self.decide_many, methods=["POST"])

    def page(self, format: Format = "html") -> Response:
        """All labelled pictures as a grid; the address has the filter and the sort order."""
        rows = self.rows
        data = {
            "n": len(rows.items), "classes": list(rows.classes), "verdicts": list(VERDICTS),
            "findings": {key: kind.name for key, kind in KINDS.items()},
            "sorts": list(SORTS), "words": rows.classifier.encoder.has_text, "decisions": self._corrections is not None,
            "labels": [] if self._corrections is None else list(self._corrections.decisions.classes),
        }  # fmt: skip
        return answer(format, lambda: data, lambda: render("browse.html", **data, **self._bar("browse")))

    async def listing(
        self,
        request: Request,
        label: Text = "",
        predicted: Text = "",
        right: Literal["", "right", "wrong"] = "",
        verdict: Text = "",
        finding: Text = "",
        decision: Text = "",
        name: Text = "",
        words: Text = "",
        like: Annotated[int, Query(ge=0, description="Sort by similarity to the picture with this index.")]
        | None = None,
        least: Chance = 0.0,
        most: Chance = 1.0,
        sort: Text = "order",
        descending: bool = False,
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 200,
        places: Annotated[bool, Query(description="Also return the indices of all pictures that match.")] = False,
    ) -> Response:
        """The number of pictures that match the filter, and `count` of them from `start` on."""
        view = View(label, predicted, right, verdict, finding, decision, name, words, least, most, sort, descending)
        if like is not None:
            if words.strip():
                raise InputError(
                    "Pictures can be sorted by words or by similarity to a picture, but not by both. Leave out "
                    "`words` or `like`."
                )
            self._known([like])
            match = await self._compute(lambda: self._similarity(like), SOON)
        else:
            match = await self._compute(lambda: self._match(words), SOON) if words.strip() else None
        decided = {} if self._corrections is None else self._corrections.decisions.standing()
        index = view.select(self.rows, decided, match)
        rows = self.rows
        data: dict[str, Any] = {
            "n": len(index), "of": len(rows.items), "done": rows.n_done, "problem": rows.problem or None,
            "note": (await run_in_threadpool(self._folders.said)) or None, "start": start,
            "like": None if like is None else rows.name(like),
            "rows": rows.to_json(index[start : start + count].tolist(), decided),
        }  # fmt: skip
        if places:
            data["places"] = index.tolist()
        return JSONResponse(data)

    def _similarity(self, like: int) -> np.ndarray:
        """Return the cosine similarity of each picture with the picture at this index."""
        rows = self.rows
        if rows.state[like] != READ:
            raise InputError(
                f"{rows.name(like)} has not been predicted yet, or cannot be read. Choose another picture."
            )
        similarity, index = np.full(len(rows.items), np.nan, np.float32), (rows.state == READ).nonzero()[0]
        query = normalize(rows.pooled(np.array([like])), dim=1)[0]
        for part in np.array_split(index, max(1, len(index) // 4096)):
            similarity[part] = (normalize(rows.pooled(part), dim=1) @ query).numpy()
        return similarity

    def _match(self, words: str) -> np.ndarray:
        """Return the cosine similarity of the words with each encoded picture."""
        rows = self.rows
        encoder = rows.classifier.encoder
        if not encoder.has_text:
            raise InputError(
                "Search by words requires an image-text encoder, which this model does not have. Search by file name."
            )
        if self._matched is None or self._matched[:2] != (words, rows.n_done):
            found = np.full(len(rows.items), np.nan, np.float32)
            index = (rows.state == READ).nonzero()[0]
            text = normalize(encoder.encode_text([words]), dim=1)[0]
            project = Projected(encoder.text)
            for part in np.array_split(index, max(1, len(index) // 4096)):
                if len(part):
                    found[part] = (project(rows.pooled(part)) @ text).detach().numpy()
            self._matched = (words, rows.n_done, found)
        return self._matched[2]

    def tiles(self, places: Places) -> Response:
        """Thumbnails of some pictures: the number of bytes of each as 32 bits, then all JPEGs."""
        index = self._numbers(places, MOST_TILES)
        assert self.rows.tiles is not None
        data = packed(self.rows.tiles.get(self.rows.tile_keys(index)))
        return Response(data, media_type=PACKED, headers={"cache-control": "private, max-age=60"})

    def list(self, places: Places) -> Response:
        """Some pictures as a table of files and labels, which `--data` and `--annotate` read."""
        return self._listed(self._numbers(places, len(self.rows.items)))

    def list_many(self, body: ListBody) -> Response:
        """The same table for any number of pictures; an address has room for about 5,000."""
        return self._listed(self._known(body.places))

    def _listed(self, index: Sequence[int]) -> Response:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("image", "label"))
        for i in index:
            sample = self.rows.items[i]
            writer.writerow(map(spreadsheet_safe, (os.path.abspath(sample.image), sample.label)))
        data = text.getvalue().encode("utf-8", "backslashreplace")
        return Response(data, media_type=CSV, headers={"content-disposition": f'attachment; filename="{LIST}"'})

    def decide_many(self, body: ManyBody) -> Response:
        """Save the same decision on many pictures. A picture with a newer decision is refused, with the reason."""
        assert self._corrections is not None
        rows, decisions = self.rows, self._corrections.decisions
        n_saved, refused, standing = 0, [], decisions.standing()
        for i in self._known(body.places):
            key, sample, base = rows.key[i].decode(), rows.items[i], body.bases.get(i, 0)
            decision = (body.decision, body.label if body.decision == "corrected" else sample.label)
            if _same(standing.get(key), decision, body.author):  # sent again after a lost answer
                n_saved += 1
                continue
            try:
                if body.decision == "undo":
                    done = decisions.undo(key, body.author, base)
                else:
                    picture = known_picture(sample.image, key)
                    done = decisions.decide(picture, body.author, body.decision, body.label, sample.label, base)
            except DataError as error:
                refused.append({"index": i, "image": rows.name(i), "error": str(error)})
                continue
            if isinstance(done, Saved) or _same(state := as_row(done.latest), decision):  # also on a copy
                n_saved += 1
            else:
                told = f"{state['author']} decided in between: {state['decision']} {state['label']}".rstrip()
                refused.append({"index": i, "image": rows.name(i), "error": f"{told}."})
        return JSONResponse({"saved": n_saved, "refused": refused})

    def _numbers(self, places: str, most: int) -> Sequence[int]:
        try:
            index = [int(text) for text in places.split(",")]
        except ValueError:
            index = [-1]
        if len(index) > most:
            raise InputError(f"At most {most} pictures can be requested, got {len(index)}.")
        return self._known(index)

    def _known(self, places: Sequence[int]) -> Sequence[int]:
        n = len(self.rows.items)
        if wrong := [i for i in places if not 0 <= i < n]:
            raise InputError(f"The index of a picture must be from 0 to {n - 1}, got {wrong[0]}. Reload the page.")
        return places


def _same(state: Mapping[str, Any] | None, decision: tuple[str, str], author: str | None = None) -> bool:
    """Return whether a decision has this kind and label and, if ``author`` is given, this author."""
    return (
        state is not None
        and (state["decision"], state["label"]) == decision
        and (author is None or state["author"] == author)
    )
