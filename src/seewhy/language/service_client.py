"""The client of a service, with bounds that no service can move: a total of seconds, one host, so many bytes.

A timeout of an HTTP client is one for each silence: a service that drips a byte a second is never silent. Here a
request runs in a thread of its own that is waited for as long as the total lasts, and no longer.
"""

from __future__ import annotations

import base64
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")
MOST_BYTES = 8_000_000
"""Of one answer; a long one of words has a hundredth of that."""
LONGEST_WAIT_S = 60.0
"""That a busy service may ask for before it is asked again."""
_KEYS = re.compile(r"\b(?:sk|pk|key|Bearer|Basic)[-_ ][\w\-*.+/=%]{6,}", re.IGNORECASE)
_PIECE = 6


class BrokenRuleError(Exception):
    """A service did what none may: sent the question on to another host, or more bytes than an answer can have."""


class Allowance:
    """Seconds that are left for one answer, over all its tries; waits that a busy service asks for are not counted.

    Args:
        seconds: in all.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds

    def spend(self, call: Callable[[], T]) -> T:
        """What the call gives."""
        outcome: list[tuple[T | None, BaseException | None]] = []

        def run() -> None:
            try:
                outcome.append((call(), None))
            except BaseException as error:
                outcome.append((None, error))

        thread = threading.Thread(target=run, name="seewhy-writer", daemon=True)
        start = time.monotonic()
        thread.start()
        thread.join(max(0.0, self.left))
        self.left -= time.monotonic() - start
        if not outcome:
            raise TimeoutError
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def make_client(key: str, base_url: str | None, timeout_s: float) -> OpenAI:
    """The official client, which tries once, sends nothing to another host, and reads no endless answer."""
    from openai import DefaultHttpxClient, OpenAI

    rules = _Rules(timeout_s)
    http = DefaultHttpxClient(event_hooks={"request": [rules.sent], "response": [rules.came]})
    client = OpenAI(
        api_key=key,
        base_url=base_url,
        timeout=timeout_s,
        max_retries=0,
        http_client=http,
        default_headers={"Accept-Encoding": "identity"},
    )
    rules.home = str(client.base_url)
    return client


class _Rules:
    """Hooks of the HTTP client."""

    def __init__(self, timeout_s: float) -> None:
        self.home = ""
        self.timeout_s = timeout_s

    def sent(self, request: Any) -> None:
        """Called before each request, those that follow a redirect too."""
        there = str(request.url)
        if not _is_home(self.home, there):
            raise BrokenRuleError(
                f"it sends the question on to {_place(there)}, and it is asked at {_place(self.home)} alone"
            )

    def came(self, response: Any) -> None:
        """Called before an answer is read."""
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise BrokenRuleError("its answer is packed, which was not asked for")
        response.stream = _bounded(response.stream, time.monotonic() + self.timeout_s + 1)  # left to itself by then


def _is_home(home: str, there: str) -> bool:
    """Same host and port by the same scheme, or by https in place of http."""
    one, two = urlsplit(home), urlsplit(there)
    if one.hostname != two.hostname:
        return False
    if one.scheme == two.scheme:
        return _port(home) == _port(there)
    return (one.scheme, two.scheme) == ("http", "https")


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{_port(url)}"


def _bounded(stream: Any, until: float) -> Any:
    """The stream, cut off by an error after so many bytes or seconds; of the class that its HTTP client expects."""
    package = sys.modules[type(stream).__module__.partition(".")[0]]

    class Bounded(package.SyncByteStream):  # type: ignore[name-defined]
        def __iter__(self) -> Iterator[bytes]:
            n_bytes = 0
            for chunk in stream:
                n_bytes += len(chunk)
                if n_bytes > MOST_BYTES:
                    raise BrokenRuleError(f"its answer has more than {MOST_BYTES:,} bytes")
                if time.monotonic() > until:
                    raise BrokenRuleError("its answer comes too slowly")
                yield chunk

        def close(self) -> None:
            stream.close()

    return Bounded()


def wait_asked_for(headers: Any, attempt: int) -> float:
    """Seconds before a busy service is asked again: as many as it asks for, else more with every attempt."""
    try:
        asked = float(headers.get("retry-after", ""))
    except (TypeError, ValueError, AttributeError):
        asked = -1.0
    return asked if 0 <= asked <= LONGEST_WAIT_S else min(8.0, 0.5 * 2**attempt)


def mask_key(text: str, key: str) -> str:
    """The text without the key: as it is, in the forms that travel in URLs and headers, and in pieces.

    >>> mask_key("wrong key sk-abcdef123456 (sk-abcd****)", "sk-abcdef123456")
    'wrong key (the key) ((the key)****)'
    """
    if key:
        forms = {key, quote(key, safe=""), quote_plus(key), base64.b64encode(key.encode()).decode()}
        forms |= {base64.b64encode(f":{key}".encode()).decode(), repr(key)[1:-1]}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "(the key)")
        text = _without_pieces(text, key)
    return _KEYS.sub("(a key)", text)


def _without_pieces(text: str, key: str) -> str:
    """Without runs of six signs or more of the key, in either case of letters."""
    pieces = {key[i : i + _PIECE].lower() for i in range(len(key) - _PIECE + 1)}
    low = text.lower()
    hidden = [False] * len(text)
    if len(low) == len(text):
        for i in range(len(text) - _PIECE + 1):
            if low[i : i + _PIECE] in pieces:
                hidden[i : i + _PIECE] = [True] * _PIECE
    shown = "".join("\0" if hide else sign for sign, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", "(the key)", shown)
