"""A grid of all labelled pictures, sorted, filtered and searched; only what is in view is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from torch.nn.functional import normalize

from ...errors import InputError
from ...heads.head import Projected
from ...language.annotation.labels import Corrections
from ...studies.inspection.check import KINDS
from .base import Format, add_data, add_file, add_page, answer, render
from .rows import MOST_ROWS, SORTS, VERDICTS, Rows, View
from .tiles import packed
from .worker import SOON

SCRIPT = "browse.js"
PACKED = "application/octet-stream"
MOST_TILES = 200
"""Of one answer."""
Text = Annotated[str, Query(max_length=1000)]
Chance = Annotated[float, Query(ge=0, le=1)]
Places = Annotated[str, Query(max_length=4000, description="Numbers of pictures, separated by commas.")]


class Browse:
    """The handlers; their docstrings are the words of the OpenAPI document."""

    def __init__(
        self, rows: Rows, compute: Callable[..., Any], corrections: Corrections | None, bar: Callable[..., Any]
    ) -> None:
        self.rows = rows
        self._compute = compute
        self._corrections = corrections
        self._bar = bar
        self._matched: tuple[str, int, np.ndarray] | None = None

    def mount(self, app: FastAPI) -> None:
        add_page(app, "/browse", self.page)
        add_data(app, "/rows", self.listing)
        add_file(app, "/tiles", self.tiles, PACKED)

    def page(self, format: Format = "html") -> Response:
        """All labelled pictures as a grid. What is shown, and how it is sorted, is in the address."""
        rows = self.rows
        data = {
            "n": len(rows.items), "classes": list(rows.classes), "verdicts": list(VERDICTS), "findings": dict(KINDS),
            "sorts": list(SORTS), "words": rows.classifier.encoder.has_text, "decisions": self._corrections is not None,
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
        least: Chance = 0.0,
        most: Chance = 1.0,
        sort: Text = "order",
        descending: bool = False,
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 200,
        places: Annotated[bool, Query(description="Also give the numbers of all pictures of the view.")] = False,
    ) -> Response:
        """The pictures of a view: how many there are, and those from `start` on."""
        view = View(label, predicted, right, verdict, finding, decision, name, words, least, most, sort, descending)
        match = await self._compute(lambda: self._match(words), SOON) if words.strip() else None
        decided = {} if self._corrections is None else self._corrections.decisions.standing()
        index = view.select(self.rows, decided, match)
        rows = self.rows
        data: dict[str, Any] = {
            "n": len(index), "of": len(rows.items), "done": rows.n_done, "problem": rows.problem or None,
            "start": start,
            "rows": rows.to_json(index[start : start + count].tolist(), decided),
        }  # fmt: skip
        if places:
            data["places"] = index.tolist()
        return JSONResponse(data)

    def _match(self, words: str) -> np.ndarray:
        """The cosine of each picture that was looked at with the words; kept until more were looked at."""
        rows = self.rows
        encoder = rows.classifier.encoder
        if not encoder.has_text:
            raise InputError("This model has no words, so pictures cannot be searched by words. Search by file name.")
        if self._matched is None or self._matched[:2] != (words, rows.n_done):
            found = np.full(len(rows.items), np.nan, np.float32)
            index = (rows.state == 1).nonzero()[0]
            text = normalize(encoder.encode_text([words]), dim=1)[0]
            project = Projected(encoder.text)
            for part in np.array_split(index, max(1, len(index) // 4096)):
                if len(part):
                    found[part] = (project(rows.pooled(part)) @ text).detach().numpy()
            self._matched = (words, rows.n_done, found)
        return self._matched[2]

    def tiles(self, places: Places) -> Response:
        """Small copies of some pictures in one answer: the number of bytes of each as 32 bits, then all JPEGs."""
        try:
            index = [int(text) for text in places.split(",")]
        except ValueError:
            index = [-1]
        if not all(0 <= i < len(self.rows.items) for i in index) or len(index) > MOST_TILES:
            raise InputError(
                f"places={places[:60]!r} was given. Expected up to {MOST_TILES} numbers of pictures, from 0."
            )
        assert self.rows.tiles is not None
        data = packed(self.rows.tiles.get(self.rows.tile_keys(index)))
        return Response(data, media_type=PACKED, headers={"cache-control": "private, max-age=60"})
