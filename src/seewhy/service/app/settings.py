"""How the page is served: every limit in one place."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Settings:
    """Limits and choices of the page.

    Attributes:
        host: address to listen on; anything but a loopback address opens the page to others.
        port: 0 takes a free one.
        names: host names under which the page may be asked for, beside ``localhost`` and any address.
        max_upload: bytes of one request's body.
        max_held: bytes of all bodies together; a request beyond it is asked to come again.
        head_seconds: how long a client may take to send a request's head.
        body_seconds: how long a client may take to send a body.
        request_seconds: how long an answer may take, measuring included.
        decode_seconds: of computing that one picture may take to be decoded.
        measure: whether maps are measured by deletion and insertion.
        n_pictures: kept in memory for all readers together; the oldest go first.
        n_sessions: readers whose edits and last pictures are remembered.
        n_recent: last pictures of one reader.
        n_waiting: pictures and jobs that may wait; one more is turned away.
        batch: pictures looked at in one call of the engine.
        gather_seconds: how long the first picture of a batch waits for others that are being decoded.
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
