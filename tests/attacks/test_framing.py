"""Where a request ends is told once and plainly, or the connection ends (RFC 9112), and its body comes in no crumbs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import h11
import pytest
import uvicorn

pytest.importorskip("uvicorn", reason="the extra 'app' is not installed, so nothing listens")

from seewhy.service.app import Settings
from seewhy.service.app.serving import LEAST_PIECE, MOST_PIECES, StrictFraming, limited, listen

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Counting:
    """An app that reads bodies and counts requests; ``/early`` is answered before its body was read."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        while scope["path"] != "/early" and (message := await receive()).get("more_body"):
            assert message["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Counting, int]]:
    app = Counting()
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(limited(app, Settings(body_seconds=5)))
        server.config.lifespan = "off"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield app, listening.getsockname()[1]
        server.should_exit = server.force_exit = True
        thread.join(20)


def answers(port: int, *sends: bytes) -> bytes:
    """All that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        found = b""
        try:
            for part in sends:
                client.sendall(part)
            while part := client.recv(65536):
                found += part
        except ConnectionError:
            pass
        return found


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
        HEAD + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 0\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        HEAD.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: +5\r\n\r\nabcde",
        HEAD + b"X: a\rContent-Length: 5\r\n\r\n",
        HEAD + b"X: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    ],
)
def test_an_end_that_is_told_in_two_ways_ends_the_connection(served: tuple[Counting, int], sent: bytes) -> None:
    app, port = served
    before = len(app.paths)
    found = answers(port, sent + SMUGGLED)
    assert found.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in found.lower()
    assert found.count(b"HTTP/1.1") == 1
    assert len(app.paths) == before


@pytest.mark.parametrize(
    "body", [b"0x1\r\nx\r\n0\r\n\r\n", b"-1\r\nx\r\n0\r\n\r\n", b"1\r\nxGET / HTTP/1.1\r\n", b"1;a\nx\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("path", [b"/", b"/early"])
def test_a_chunk_that_is_none_ends_the_connection(served: tuple[Counting, int], path: bytes, body: bytes) -> None:
    app, port = served
    found = answers(port, HEAD.replace(b"/ ", path + b" ", 1) + CHUNKED + b"\r\n", body + SMUGGLED)
    assert found.count(b"HTTP/1.1") <= 1
    assert "/smuggled" not in app.paths


def test_chunks_of_other_programs_are_read(served: tuple[Counting, int]) -> None:
    _, port = served
    body = b"4;name=value\r\nabcd\r\n" + b"64\r\n" + b"x" * 100 + b"\r\n" + b"0\r\nTrailer: a\r\n\r\n"
    found = answers(port, HEAD + CHUNKED + b"Connection: close\r\n\r\n" + body)
    assert found.startswith(b"HTTP/1.1 200 ")


def test_a_body_in_crumbs_ends_the_connection(served: tuple[Counting, int]) -> None:
    _, port = served
    crumbs = b"1\r\nx\r\n" * (2 * MOST_PIECES)
    assert b" 200 " not in answers(port, HEAD + CHUNKED + b"\r\n" + crumbs + b"0\r\n\r\n")
    few = b"1\r\nx\r\n" * (MOST_PIECES // 2)
    assert b" 200 " in answers(port, HEAD + CHUNKED + b"Connection: close\r\n\r\n" + few + b"0\r\n\r\n")


@pytest.mark.parametrize(("size", "taken"), [(LEAST_PIECE, True), (LEAST_PIECE // 2, False)])
def test_crumbs_are_small_on_average(size: int, taken: bool) -> None:
    reading = StrictFraming(h11.SERVER, 32_000)
    reading.receive_data(HEAD + CHUNKED + b"\r\n" + (b"%x\r\n%s\r\n" % (size, b"x" * size)) * 10 * MOST_PIECES)
    pieces = 0
    try:
        while (event := reading.next_event()) is not h11.NEED_DATA:
            pieces += isinstance(event, h11.Data)
    except h11.RemoteProtocolError:
        pass
    assert (pieces == 10 * MOST_PIECES) is taken
