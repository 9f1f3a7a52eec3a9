"""The limits of the pages."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Settings:
    """Limits and settings of the web pages.

    Attributes:
        host: address to listen on; an address other than loopback opens the page to other machines.
        port: port to listen on; 0 picks a free one.
        names: host names that requests may use, in addition to ``localhost`` and IP addresses.
        max_upload: maximum bytes of a request's body.
        max_held: maximum bytes of all bodies together; a request that exceeds it gets the status 503.
        head_seconds: maximum seconds to receive a request's head.
        body_seconds: maximum seconds to receive a body.
        request_seconds: maximum seconds for an answer, including measures of faithfulness.
        decode_seconds: maximum CPU seconds to decode one picture.
        measure: whether to measure maps by deletion and insertion.
        n_pictures: maximum number of pictures in memory; the oldest are dropped.
        n_sessions: maximum number of readers whose edits and recent pictures are stored.
        n_recent: number of recent pictures to list for a reader.
        n_waiting: maximum number of waiting pictures and jobs; a request that exceeds it gets the status 503.
        batch: maximum number of pictures per batch.
        gather_seconds: seconds that a batch waits for pictures that are being decoded.
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
