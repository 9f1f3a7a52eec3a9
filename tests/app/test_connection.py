"""Clients that dawdle, on a real socket: uvicorn alone would wait for them for ever."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

pytest.importorskip("uvicorn", reason="the extra 'app' is not installed, so there is no page")

from seewhy.service.app import Settings
from seewhy.service.app.serving import limited, listen

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def greets(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def pours(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(30_000_000)})


@pytest.fixture
def served() -> Iterator[Callable[..., int]]:
    """Serves an app with some limits; gives the port."""
    stops: list[Callable[[], None]] = []

    def serve(app: Any, keep_alive: int = 10, **limits: Any) -> int:
        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(limited(app, Settings(**limits)))
        server.config.lifespan = "off"
        server.config.timeout_keep_alive = keep_alive
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()

        def stop() -> None:
            server.should_exit = server.force_exit = True
            thread.join(20)
            listening.close()

        stops.append(stop)
        return int(listening.getsockname()[1])

    yield serve
    for stop in stops:
        stop()


def closed_after(client: socket.socket, sends: bytes = b"", within: float = 10) -> float:
    """Seconds until the server hangs up, while a byte is sent now and then."""
    start = time.monotonic()
    client.settimeout(0.05)
    while time.monotonic() - start < within:
        try:
            if sends:
                client.sendall(sends)
            if not client.recv(100_000):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - start


def answered(client: socket.socket) -> None:
    got = b""
    while not got.endswith(b"hello"):
        got += client.recv(1000)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_head_that_does_not_come_is_given_up(served: Callable[..., int], sent: bytes) -> None:
    port = served(greets, head_seconds=0.5)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(sent)
        assert 0.3 < closed_after(client) < 5


def test_a_head_that_comes_byte_by_byte_is_given_up(served: Callable[..., int]) -> None:
    port = served(greets, head_seconds=0.5)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert 0.3 < closed_after(client, b"x") < 5


def test_the_second_head_of_a_connection_is_given_up_too(served: Callable[..., int]) -> None:
    port = served(greets, head_seconds=0.5)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(HEAD + HEAD[:10])
        answered(client)
        assert closed_after(client, b"x") < 5


def test_a_refused_body_that_goes_on_is_given_up(served: Callable[..., int]) -> None:
    port = served(greets, body_seconds=0.5)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(HEAD.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 9999999\r\n\r\n"))
        answered(client)
        assert 0.3 < closed_after(client, b"x") < 5


def test_an_answer_may_take_longer_than_the_head(served: Callable[..., int]) -> None:
    async def thinks(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.6)
        await greets(scope, receive, send)

    port = served(thinks, head_seconds=0.3)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        client.sendall(HEAD)
        assert b"200 OK" in client.recv(1000)


def test_an_answer_that_nobody_reads_is_dropped(served: Callable[..., int]) -> None:
    port = served(pours, keep_alive=0, request_seconds=0.3)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(HEAD)
        time.sleep(1.5)
        client.settimeout(5)
        got = 0
        while part := client.recv(1_000_000):
            got += len(part)
        assert got < 30_000_000, "what was not read in time was thrown away"


def test_accepted_connections_send_small_answers_at_once() -> None:
    """Head and body are two writes; the second would wait 40 ms for the client to confirm the first."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_head_that_is_too_large_is_refused(served: Callable[..., int]) -> None:
    port = served(greets)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(5)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000)
        assert b"400 Bad Request" in client.recv(1000)
