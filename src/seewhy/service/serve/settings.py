"""Settings and token of the service, and the fields of its access log."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

from ...errors import InputError
from ...explanation.result import HIDDEN, Result
from ...results import Count, Doc
from ...storage.reading import read_text, readable
from ..app.settings import Settings

TOKEN_VARIABLE = "SEEWHY_TOKEN"
SHORTEST_TOKEN = 16
MOST_TOKEN_BYTES = 4096
GONE = 499
"""Status in the log if the client disconnected before its answer."""


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and settings of a service.

    Attributes:
        web: settings of address, sizes, times, batches and queues, as for the pages.
        token: token of the header ``Authorization: Bearer …``; ``None`` requires no token.
        open_without_token: whether other machines may send requests without a token.
        n_pictures: maximum pictures per request.
        rate: maximum requests per minute from one address; ``None`` sets no limit.
        reload_seconds: seconds between checks for a new model; 0 waits for SIGHUP.
        drain_seconds: maximum seconds for running requests after SIGTERM.

    Raises:
        InputError: other machines can reach the service, and it has no token.
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
                f"A token is required, because other machines can reach {self.web.host}. Give "
                f"--token-file FILE or set {TOKEN_VARIABLE}; --no-token serves everybody."
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
    """Return the token from a file or from the environment, or ``None``."""
    if file is None:
        given = os.environ.get(TOKEN_VARIABLE)
        return None if given is None else _check_token(given.strip())
    with readable(f"The token file {file}", "Make one with: openssl rand -hex 32 > token", InputError):
        return _check_token(read_text(file, MOST_TOKEN_BYTES).strip())


def _check_token(token: str) -> str:
    if len(token) < SHORTEST_TOKEN or not all("!" <= sign <= "~" for sign in token):
        raise InputError(
            f"The token must have at least {SHORTEST_TOKEN} printable ASCII characters without "
            f"spaces, got {len(token)} characters. Make one with: openssl rand -hex 32"
        )
    return token


@dataclass
class Visit(Result):
    """A line of the access log of ``seewhy serve``."""

    time: Annotated[str, Doc("UTC, when the answer ended")] = ""
    id: Annotated[str, Doc("`X-Request-ID`: the client's if printable")] = ""
    client: Annotated[str, Doc("address")] = ""
    method: Annotated[str, Doc("of the request")] = ""
    path: Annotated[str, Doc("without the query, at most 500 characters")] = ""
    status: Annotated[int, Doc("of the answer; 499 if the client left")] = GONE
    seconds: Annotated[float, Doc("from head to the end of the answer")] = 0.0
    bytes_in: Annotated[Count, Doc("of the body")] = 0
    bytes_out: Annotated[Count, Doc("of the answer")] = 0
    model: Annotated[str | None, Doc("that answered; `null` if none did")] = None
    pictures: Annotated[Count, Doc("sent")] = 0
    failed: Annotated[Count, Doc("pictures that could not be read")] = 0
    start: Annotated[float, HIDDEN] = field(default_factory=monotonic)
