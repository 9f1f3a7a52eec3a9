"""Every limit of the page, in one place."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Settings:
    """Limits and choices of the page.

    Attributes:
        host: address to listen on; any other than a loopback address opens the page to other machines.
        port: port to listen on; 0 picks a free one.
        names: host names that the page answers under, besides ``localhost`` and addresses.
        max_upload: most bytes of one request's body.
        max_held: most bytes of all bodies together; a request beyond it gets 503.
        head_seconds: how long a client may take to send a request's head.
        body_seconds: how long a client may take to send a body.
        request_seconds: how long an answer may take, measuring included.
        decode_seconds: processor seconds to decode one picture.
        measure: whether to measure maps by deletion and insertion.
        n_pictures: pictures kept in memory for all readers together; the oldest go first.
        n_sessions: readers whose edits and last pictures are remembered.
        n_recent: how many of a reader's last pictures to list.
        n_waiting: pictures and jobs that may wait; one more gets 503.
        batch: most pictures per batch.
        gather_seconds: how long a batch waits for pictures that are being decoded.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    max_upload: int = 20 * MEGABYTE
    max_held: int = 500 * MEGABYTE
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    request_seconds: float = 120.0
    decode_seconds: int = 10
    measure: bool = True
    n_pictures: int = 200
    n_sessions: int = 200
    n_recent: int = 12
    n_waiting: int = 256
    batch: int = 16
    gather_seconds: float = 0.02

    @property
    def is_open(self) -> bool:
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() != "localhost"
