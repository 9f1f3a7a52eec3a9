"""Heat maps of the labelled pictures, computed one by one on request and cached."""

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
"""Maximum number of pictures with heat in memory; each takes about 15 kB."""
MOST_WAITING = 8
"""Maximum number of waiting requests; a request of a reader who left the page soon ends."""


class Heats:
    """The request handler; its docstring appears in the OpenAPI document."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._cache: Bounded[bytes] = Bounded(MOST_KEPT)
        self._turn = asyncio.Lock()
        self._n_waiting = 0

    def mount(self, app: FastAPI) -> None:
        add_file(app, "/heat/{index}", self.heat, JPEG)

    async def heat(self, request: Request, index: Index) -> Response:
        """A picture of `--data` with the heat map of its prediction. Empty if the client has disconnected."""
        self._state.sample(index)
        await request.body()  # after this, the next message is a disconnect
        picture = self._cache.get(index)
        if picture is None:
            if self._n_waiting >= MOST_WAITING:
                raise BusyError(
                    f"{self._n_waiting} requests for heat maps are already waiting. Try again in a few seconds."
                )
            self._n_waiting += 1
            try:
                async with self._turn:
                    picture = self._cache.get(index) or await self._compute(request, index)
            finally:
                self._n_waiting -= 1
        return Response(picture, media_type=JPEG) if picture else Response(status_code=204)

    async def _compute(self, request: Request, index: int) -> bytes:
        """Return the picture with its heat map as JPEG; empty if the client has disconnected."""
        if await request.is_disconnected():
            return b""
        encoded = await self._state.see_sample(index)
        if await request.is_disconnected():
            return b""
        picture = await self._state.compute(lambda: self._draw(encoded))
        self._cache.put(index, picture)
        return picture

    def _draw(self, encoded: Encoded) -> bytes:
        (case,) = cases(Question.of(self._state.classifier, ExplainOptions(measure=False)), [encoded])
        return encode_thumbnail(blend(case.picture.pixels, case.heat.numpy()), QUALITY)
