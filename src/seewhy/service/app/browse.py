"""A grid of all labelled pictures that can be sorted, filtered and searched."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, FailFast, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from torch import Tensor
from torch.nn.functional import normalize

from ...errors import DataError, InputError
from ...heads.head import Projected
from ...language.annotation.labels import KEY, as_row, check_listable, known_picture
from ...language.annotation.records import Version
from ...printable import csv_row, spreadsheet_safe
from ...report.blocks import spoken
from ...studies.inspection.check import KINDS
from .base import CSV, Format, add_data, add_file, add_page, answer, at_most, render
from .folders import Folders
from .rows import MOST_ROWS, READ, SORTS, VERDICTS, View, number_or_none
from .state import Bounded, State
from .tiles import packed
from .worker import SOON, BusyError

SCRIPT = "browse.js"
PACKED = "application/octet-stream"
LIST = "selection.csv"
MOST_DECISIONS = 2000
"""Maximum number of decisions in one request."""
MOST_TILES = 200
"""Maximum number of tiles in one answer."""
MOST_MATCHES = 8
"""Maximum number of searches in memory; each takes 4 bytes per picture."""
Places = Annotated[str, Query(max_length=400_000, description="Indices of pictures, separated by commas.")]


Like = Annotated[
    str,
    Query(max_length=64, description="Sort by similarity to a picture: its key, or the id that `POST /look` gives."),
]


class Asked(View):
    like: Like = ""
    start: int = Field(0, ge=0)
    count: int = Field(200, ge=0, le=MOST_ROWS)
    places: bool = Field(False, description="Also return the indices of all pictures that match.")


@dataclass(frozen=True)
class Example:
    """The picture to compare with."""

    like: str
    name: str
    card: str
    pooled: Float[Tensor, "1 d"]

    def to_json(self) -> dict[str, str]:
        return {"image": self.name, "card": self.card, "thumbnail": f"{self.card}/thumbnail"}


class ListBody(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    places: Annotated[list[int], FailFast()] = Field(min_length=1, description="Indices of pictures.")
    data: str = Field(
        "",
        max_length=64,
        description="The `data` of `GET /changed` when the client read the indices; they are refused if it changed.",
    )


class ManyBody(ListBody):
    author: str = Field(max_length=1000, description="Who decides.")
    decision: Literal["changed", "kept", "postponed", "left_out", "undo"] = Field(
        description="The decision on all of the pictures."
    )
    label: str = Field("", max_length=1000, description="The new label, if the decision is `changed`.")
    places: Annotated[list[int], at_most(MOST_DECISIONS)] = Field(description="Indices of pictures.")
    bases: Annotated[dict[int, int], at_most(MOST_DECISIONS)] = Field(
        default_factory=dict,
        description="By picture: the number of its latest decision that the client has seen, if any.",
    )


class Browse:
    """The request handlers; their docstrings appear in the OpenAPI document."""

    def __init__(self, state: State, sources: Sequence[Path] = ()) -> None:
        assert state.rows is not None
        self.rows = state.rows
        self._state = state
        self._corrections = state.corrections
        self._folders = Folders(state.rows, sources)
        self._beside = [os.path.dirname(os.path.abspath(place)) for place in sources]
        self._matches: Bounded[np.ndarray] = Bounded(MOST_MATCHES)

    def mount(self, app: FastAPI) -> None:
        add_page(app, "/browse", self.page)
        add_data(app, "/rows", self.listing)
        add_data(app, "/changed", self.changed)
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
        return answer(format, lambda: data, lambda: render("browse.html", **data, **self._state.bar("browse")))

    def changed(self) -> Response:
        """What has changed in the folders of the data since the page was started."""
        return JSONResponse({**self._folders.news().to_json(), "data": self.rows.digest})

    async def listing(self, asked: Annotated[Asked, Query()]) -> Response:
        """The number of pictures that match the filter, and `count` of them from `start` on."""
        like, words, start = asked.like, asked.words, asked.start
        if like and words.strip():
            raise InputError(
                "Pictures can be sorted by words or by similarity to a picture, but not by both. Leave out "
                "`words` or `like`."
            )
        example = self._example(like) if like else None
        match = None
        if example is not None or words.strip():
            match = await self._state.compute(lambda: self._match(words if example is None else example), SOON)
        decided = self._state.decided()
        index = asked.select(self.rows, decided, match)
        rows = self.rows
        data: dict[str, Any] = {
            "n": len(index), "of": len(rows.items), "done": rows.n_done, "problem": rows.problem or None,
            "start": start, "fitted_on": rows.fitted_on(),
            "like": None if example is None else example.to_json(),
            "rows": rows.to_json(index[start : start + asked.count].tolist(), decided),
        }  # fmt: skip
        if example is not None and match is not None:
            for row in data["rows"]:
                row["similarity"] = number_or_none(match[row["index"]])
        if asked.places:
            data["places"] = index.tolist()
        return JSONResponse(data)

    def _example(self, like: str) -> Example:
        """Return the picture to compare with: one of the data by its key, or one in memory by its id."""
        rows, shown = self.rows, self._state.pictures.get(like)
        if shown is not None:
            return Example(like, shown.seen.name, f"/card/{like}", shown.seen.pooled[:1])
        if re.fullmatch(f"[0-9a-f]{{{KEY}}}", like):
            if len(index := (rows.key == like.encode()).nonzero()[0]):
                return Example(like, rows.names[index[0]], f"/sample/{index[0]}", rows.pooled(index[:1]))
            if rows.n_done < len(rows.items):
                raise BusyError("The picture to compare with has not been predicted yet. Wait until it is.")
            raise HTTPException(
                404, "The picture to compare with is no longer in the data. Press Remove, or choose another picture."
            )
        raise HTTPException(
            404, "The server no longer has the picture to compare with. Choose it again, or press Remove."
        )

    def _match(self, query: str | Example) -> np.ndarray:
        """Return the cosine similarity of each encoded picture with words or with a picture."""
        rows, encoder = self.rows, self.rows.classifier.encoder
        key = (query if isinstance(query, str) else query.like, rows.n_done)
        if (similarity := self._matches.get(key)) is not None:
            return similarity
        project: Callable[[Tensor], Tensor] = partial(normalize, dim=1)
        if isinstance(query, Example):
            wanted = query.pooled
        elif encoder.has_text:
            wanted, project = encoder.encode_text([query]), Projected(encoder.text)
        else:
            raise InputError(
                "Search by words requires an image-text encoder, which this model does not have. Search by file name."
            )
        similarity, index = np.full(len(rows.items), np.nan, np.float32), (rows.state == READ).nonzero()[0]
        for part in np.array_split(index, len(index) // 4096 + 1):
            if len(part):
                similarity[part] = (project(rows.pooled(part)) @ normalize(wanted, dim=1)[0]).detach().numpy()
        self._matches.put(key, similarity)
        return similarity

    def tiles(self, places: Places) -> Response:
        """Thumbnails of some pictures as JPEG, after a header with the size of each in bytes as a 32-bit integer."""
        index = self._numbers(places, MOST_TILES)
        assert self.rows.tiles is not None
        data = packed(self.rows.tiles.get(self.rows.tile_keys(index)))
        return Response(data, media_type=PACKED)

    def list(self, places: Places) -> Response:
        """Some pictures as a table of files and labels, which `--data` and `--annotate` read. Other machines get file
        names that are relative to the folder in which the data lie.
        """
        return self._listed(self._numbers(places, len(self.rows.items)))

    def list_many(self, body: ListBody) -> Response:
        """The same table for any number of pictures; an address has room for about 5,000."""
        self.rows.check_digest(body.data)
        return self._listed(self._known(body.places))

    def _listed(self, index: Sequence[int]) -> Response:
        lines = [csv_row(("image", "label"))]
        for i in dict.fromkeys(index):  # a client may repeat a picture a million times
            sample = self.rows.items[i]
            check_listable(sample.image)
            lines.append(csv_row(map(spreadsheet_safe, (self._path(sample.image), sample.label))))
        data = "".join(lines).encode("utf-8", "backslashreplace")
        return Response(data, media_type=CSV, headers={"content-disposition": f'attachment; filename="{LIST}"'})

    def _path(self, image: str) -> str:
        path = os.path.abspath(image)
        if not self._state.settings.is_open:
            return path
        folder = next((one for one in self._beside if path.startswith(os.path.join(one, ""))), os.path.dirname(path))
        return os.path.relpath(path, folder)

    def decide_many(self, body: ManyBody) -> Response:
        """Save the same decision on many pictures. A picture with a newer decision is refused, with the reason.
        `numbers` has the number of the latest decision on each of the others, which a later request gives as its base.
        """
        rows, refused, numbers = self.rows, [], {}
        rows.check_digest(body.data)
        standing, done = self._state.decided(), dict[tuple[str, str], int | str]()
        for i in self._known(body.places):
            key = rows.key[i].decode()
            about = key, rows.items[i].label if body.decision == "kept" else ""
            if about not in done:  # copies of a picture share its decision
                done[about] = self._decide(i, body, standing.get(key))
            if isinstance(outcome := done[about], int):
                numbers[i] = outcome
            else:
                refused.append({"index": i, "image": rows.names[i], "error": outcome})
        return JSONResponse({"saved": len(numbers), "refused": refused, "numbers": numbers})

    def _decide(self, i: int, body: ManyBody, standing: Mapping[str, Any] | None) -> int | str:
        """Return the number of the decision, or the reason why it is refused."""
        assert self._corrections is not None
        decisions, key, sample = self._corrections.decisions, self.rows.key[i].decode(), self.rows.items[i]
        wanted = (body.decision, body.label if body.decision == "changed" else sample.label)
        base = body.bases.get(i, 0)
        if standing is not None and _same(standing, wanted, body.author):  # sent again after a lost answer
            return int(standing["number"])
        try:
            if body.decision == "undo":
                done = decisions.undo(key, body.author, base)
            else:
                picture = known_picture(sample.image, key)
                done = decisions.decide(picture, body.author, body.decision, body.label, sample.label, base)
        except DataError as error:
            return str(error)
        if isinstance(done, Version):
            return done.number
        state = as_row(done.latest)
        if _same(state, wanted):
            return int(state["number"])
        return f"{state['author']} decided in between: {spoken(state['decision'])} {state['label']}".rstrip() + "."

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


def _same(state: Mapping[str, Any], decision: tuple[str, str], author: str | None = None) -> bool:
    """Return whether a decision has this kind and label and, if ``author`` is given, this author."""
    return (state["decision"], state["label"]) == decision and author in (None, state["author"])
