"""Pictures of the data with their heat: one computed at a time, while somebody waits for it, and kept."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ...encoders.stream import Encoded
from ...evidence.case import Question, cases
from ...evidence.explain import ExplainOptions
from ...pictures.miniatures import encode_thumbnail
from ...report.palette import blend
from .base import JPEG, Index, add_file
from .state import Bounded, State
from .worker import BusyError

QUALITY = 85
MOST_KEPT = 500
"""Pictures with heat in memory; each has about 15 kB."""
MOST_WAITING = 8
"""Readers who wait for a heat. One who moved on does not count for long."""


class Heats:
    """The handler; its docstring is the words of the OpenAPI document."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept: Bounded[bytes] = Bounded(MOST_KEPT)
        self._turn = asyncio.Lock()
        self._n_waiting = 0

    def mount(self, app: FastAPI) -> None:
        add_file(app, "/heat/{index}", self.heat, JPEG)

    async def heat(self, request: Request, index: Index) -> Response:
        """One of the pictures of `--data`, with the heat for its prediction. Empty if the reader has gone."""
        self._state.sample(index)
        await request.body()  # after which a message can only say that the reader has gone
        found = self._kept.get(index)
        if found is None:
            if self._n_waiting >= MOST_WAITING:
                raise BusyError(f"{self._n_waiting} readers already wait for heat. Try again in a few seconds.")
            self._n_waiting += 1
            try:
                async with self._turn:
                    found = self._kept.get(index) or await self._made(request, index)
            finally:
                self._n_waiting -= 1
        return Response(found, media_type=JPEG) if found else Response(status_code=204)

    async def _made(self, request: Request, index: int) -> bytes:
        """Nothing where the reader has gone, which is asked before each of the two costly steps."""
        if await request.is_disconnected():
            return b""
        seen = await self._state.see_sample(index)
        if await request.is_disconnected():
            return b""
        made = await self._state.compute(lambda: self._drawn(seen))
        self._kept.put(index, made)
        return made

    def _drawn(self, seen: Encoded) -> bytes:
        (case,) = cases(Question.of(self._state.classifier, ExplainOptions(measure=False)), [seen])
        return encode_thumbnail(blend(case.picture.pixels, case.heat.numpy()), QUALITY)
