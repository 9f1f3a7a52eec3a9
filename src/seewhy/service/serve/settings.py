"""How a service is run, its token and every limit that the page does not have; and what the log says of a request."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

from ...errors import InputError
from ...explanation.result import HIDDEN, Result
from ...results import Count, Doc
from ...storage.reading import read_text, reason
from ..app.settings import Settings

TOKEN_VARIABLE = "SEEWHY_TOKEN"
SHORTEST_TOKEN = 16
MOST_TOKEN_BYTES = 4096
GONE = 499
"""Status, in the log alone, of a client that left before its answer."""


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and choices of a service.

    Attributes:
        web: address, sizes, times, batches and queues, as those of the page.
        token: what a request must bring as ``Authorization: Bearer …``; ``None`` asks for none.
        open_without_token: whether other machines may ask without a token.
        n_pictures: most pictures per request.
        rate: requests a minute from one address; ``None`` sets no limit.
        reload_seconds: how often folders are looked at for a new model; 0 waits for SIGHUP alone.
        drain_seconds: how long requests that run may take to end after SIGTERM.

    Raises:
        InputError: other machines can reach it, and it asks for no token.
    """

    web: Settings = field(default_factory=Settings)
    token: str | None = field(default=None, repr=False)
    open_without_token: bool = False
    n_pictures: int = 32
    rate: float | None = None
    reload_seconds: float = 5.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.token is not None:
            _check_token(self.token)
        elif self.web.is_open and not self.open_without_token:
            raise InputError(
                f"{self.web.host} can be reached by other machines, and no token was given. A service that others "
                f"reach asks for one. Give --token-file FILE or {TOKEN_VARIABLE}, or say --no-token."
            )

    def limits(self) -> dict[str, Any]:
        web = self.web
        return {
            "pictures": self.n_pictures,
            "bytes": web.max_upload,
            "bytes_together": web.max_held,
            "requests_a_minute": self.rate,
            "waiting": web.n_waiting,
            "batch": web.batch,
            "wait_seconds": web.gather_seconds,
            "body_seconds": web.body_seconds,
            "answer_seconds": web.request_seconds,
            "decode_seconds": web.decode_seconds,
        }


def read_token(file: Path | None) -> str | None:
    """The token of a file, or else of the environment; ``None`` where there is neither."""
    if file is None:
        given = os.environ.get(TOKEN_VARIABLE)
        return None if given is None else _check_token(given.strip())
    try:
        text = read_text(file, MOST_TOKEN_BYTES).strip()
    except OSError as error:
        raise InputError(
            f"The token in {file} cannot be read: {reason(error).lower()}. A file with one line was expected. "
            "Make one with: openssl rand -hex 32 > token"
        ) from error
    return _check_token(text)


def _check_token(token: str) -> str:
    if len(token) < SHORTEST_TOKEN or not all("!" <= sign <= "~" for sign in token):
        raise InputError(
            f"The token has {len(token)} signs. At least {SHORTEST_TOKEN} printable ASCII signs without blanks were "
            "expected. Make one with: openssl rand -hex 32"
        )
    return token


@dataclass
class Visit(Result):
    """A line of the access log of seewhy serve."""

    time: Annotated[str, Doc("UTC time at the end of the answer")] = ""
    id: Annotated[str, Doc("`X-Request-ID`, the client's if printable")] = ""
    client: Annotated[str, Doc("address of the client")] = ""
    method: Annotated[str, Doc("method of the request")] = ""
    path: Annotated[str, Doc("path without the query, at most 500 characters")] = ""
    status: Annotated[int, Doc("status of the answer; 499 if the client left")] = GONE
    seconds: Annotated[float, Doc("time from the headers to the end of the answer")] = 0.0
    bytes_in: Annotated[Count, Doc("size of the request's body")] = 0
    bytes_out: Annotated[Count, Doc("size of the answer")] = 0
    model: Annotated[str | None, Doc("the model requested, or `null`")] = None
    pictures: Annotated[Count, Doc("number of pictures sent")] = 0
    failed: Annotated[Count, Doc("pictures among them that could not be read")] = 0
    start: Annotated[float, HIDDEN] = field(default_factory=monotonic)
