"""Services that drip, redirect, flood, answer nonsense or repeat the key: one sentence each, and in time."""

from __future__ import annotations

import base64
import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

pytest.importorskip("openai", reason="the extra 'writers' is not installed, so there is no service to ask")

from fake_service import Raw, Refusal, serving
from seewhy.language.service_writer import MOST_BYTES, ServiceWriter, mask_key
from seewhy.language.writers import NoWriterError, Prompt, WriterError

KEY = "sk-very/secret+indeed42"
ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "there"}}],
    }
).encode()


def head(status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, *([] if length is None else [f"Content-Length: {length}"])]).encode() + b"\r\n\r\n"


@contextmanager
def bare(answer: Callable[[Callable[[bytes], None], int], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server of bare bytes: its URL, and the requests it got."""
    listening, requests, stop = socket.create_server(("127.0.0.1", 0)), [], threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            got = b""
            while b"\r\n\r\n" not in got and (part := connection.recv(65536)):
                got += part
            requests.append(got)

            def send(data: bytes) -> None:
                if stop.is_set():
                    raise OSError("stopped")
                connection.sendall(data)

            try:
                answer(send, len(requests))
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", requests
    finally:
        stop.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def drip_body(send: Callable[[bytes], None], _n: int) -> None:
    send(head(length=10_000))
    for _ in range(600):
        send(b" ")
        time.sleep(0.05)


def drip_head(send: Callable[[bytes], None], _n: int) -> None:
    send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    for _ in range(600):
        send(b"a")
        time.sleep(0.05)


def silence(send: Callable[[bytes], None], _n: int) -> None:
    time.sleep(30)


def round_and_round(send: Callable[[bytes], None], n: int) -> None:
    time.sleep(0.1)
    send(head("307 Temporary Redirect", 0, Location=f"/v1/{n}", Connection="close"))


def busy_by_drops(send: Callable[[bytes], None], _n: int) -> None:
    send(head("503 Busy", 10_000))
    drip_body(send, 0)


@pytest.mark.parametrize("answer", [drip_body, drip_head, silence, busy_by_drops], ids=lambda a: a.__name__)
def test_the_timeout_is_a_total(answer: Callable[..., None]) -> None:
    start = time.monotonic()
    with bare(answer) as (url, _), pytest.raises(NoWriterError) as caught:
        ServiceWriter("m", url, timeout_s=0.8).write(Prompt("x"))
    assert time.monotonic() - start < 15
    assert str(caught.value) == (
        f"m at {url} gave no complete answer within 0.8 seconds. Raise --set timeout, or use a faster service."
    )


def test_going_round_in_redirects_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    with bare(round_and_round) as (url, _), pytest.raises(WriterError):
        ServiceWriter("m", url, timeout_s=1.0).write(Prompt("x"))
    assert time.monotonic() - start < 15


def busy_slowly(send: Callable[[bytes], None], _n: int) -> None:
    time.sleep(0.6)
    send(head("503 Busy", 0, retry_after="0", Connection="close"))


def test_tries_share_one_total() -> None:
    with bare(busy_slowly) as (url, requests), pytest.raises(NoWriterError, match=r"within 1\.5 seconds"):
        ServiceWriter("m", url, timeout_s=1.5).write(Prompt("x"))
    assert len(requests) <= 3


def test_nothing_is_sent_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with bare(lambda send, _n: send(head(length=len(ANSWER)) + ANSWER)) as (elsewhere, stolen):

        def away(send: Callable[[bytes], None], _n: int) -> None:
            send(head("307 Temporary Redirect", 0, Location=elsewhere + "/chat/completions"))

        with bare(away) as (url, requests), pytest.raises(NoWriterError) as caught:
            ServiceWriter("m", url).write(Prompt("a private question"))
    assert len(requests) == 1
    assert stolen == []
    assert str(caught.value) == (
        f"SeeWhy stopped asking m at {url}: it redirects the request to {elsewhere}/chat/completions. "
        "Correct --base-url."
    )


def flood(send: Callable[[bytes], None], _n: int) -> None:
    send(head())
    for _ in range(2 * MOST_BYTES // 100_000):
        send(b" " * 100_000)


def packed(send: Callable[[bytes], None], _n: int) -> None:
    send(head(length=20, Content_Encoding="gzip") + b"x" * 20)


@pytest.mark.parametrize(
    ("answer", "said"), [(flood, "its answer has more than 8,000,000 bytes"), (packed, "its answer is compressed")]
)
def test_an_answer_has_a_size(answer: Callable[..., None], said: str) -> None:
    with bare(answer) as (url, _), pytest.raises(NoWriterError, match=said):
        ServiceWriter("m", url).write(Prompt("x"))


def chat(content: object) -> str:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": 5}',
        '{"choices": [5]}',
        '{"choices": [null]}',
        '{"choices": {}}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": "text"}]}',
        '{"choices": [{}]}',
        chat(5),
        chat(["a", "list"]),
        chat({"a": "b"}),
        chat(True),
        '{"choices": [{"message": {"content": NaN}}]}',
        chat("half a sign \ud800"),
        "[" * 10_000 + "]" * 10_000,
        '{"choices":' + "[" * 10_000 + "]" * 10_000 + "}",
        "<html><body>Bad gateway</body></html>",
        "null",
        "5",
        '"text"',
        "",
        "data: {}\n\n",
    ],
)
def test_a_broken_answer_is_one_sentence(body: str) -> None:
    with serving(lambda request: Raw(body)) as service, pytest.raises(WriterError) as caught:
        ServiceWriter("m", service.url, n_retries=0).write(Prompt("x"))
    assert str(caught.value) == (
        f"The answer of m at {service.url} must be a chat completion with text in "
        "choices[0].message.content. Check --base-url, or use another service."
    )


def test_bytes_that_are_no_text_and_none_at_all_are_one_sentence() -> None:
    with bare(lambda send, _n: send(head(length=4) + b"\xff\xfe\xfa{")) as (url, _):
        with pytest.raises(WriterError, match="must be a chat completion"):
            ServiceWriter("m", url).write(Prompt("x"))
    with serving(lambda request: Raw(chat(None))) as service, pytest.raises(WriterError, match="an empty answer"):
        ServiceWriter("m", service.url).write(Prompt("x"))


def test_a_page_of_an_error_stays_one_line() -> None:
    page = "<html>\n<h1>\x1b[31m502 Bad\r\n Gateway</h1>\u202e</html>" * 50
    with serving(lambda request: Refusal(404, page)) as service, pytest.raises(WriterError) as caught:
        ServiceWriter("m", service.url).write(Prompt("x"))
    said = str(caught.value)
    assert len(said) < 600
    assert said.isprintable()


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        f"Authorization: Bearer {KEY}",
        f"/v1?key={quote(KEY, safe='')}",
        f"Basic {base64.b64encode(f':{KEY}'.encode()).decode()}",
        base64.b64encode(KEY.encode()).decode(),
        f"begins with {KEY[:9]} and ends with {KEY[-9:]}",
        KEY.upper(),
        f"{KEY[:12]}****",
    ],
)
def test_an_echoed_key_is_masked(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request: Refusal(401, f"wrong: {echo}")) as service, pytest.raises(WriterError) as caught:
        ServiceWriter("m", service.url).write(Prompt("x"))
    said = str(caught.value).lower()
    assert "key)" in said
    low = KEY.lower()
    assert not [low[i : i + 7] for i in range(len(low) - 6) if low[i : i + 7] in said]
    assert base64.b64encode(KEY.encode()).decode().lower()[:10] not in said


def test_a_key_in_an_answer_is_masked_and_other_words_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request: f"red wings, {KEY}") as service:
        assert ServiceWriter("m", service.url).write(Prompt("x")) == "red wings, (the key)"
    assert mask_key("a monkey with a keyboard", "") == "a monkey with a keyboard"


def test_a_writer_that_is_gone_leaves_no_connection_open() -> None:
    with serving(lambda request: Raw(chat("yes"))) as service:
        writer = ServiceWriter("m", service.url)
        writer.write(Prompt("x"))
        client = writer._client
        assert not client.is_closed()
        del writer
        gc.collect()
        assert client.is_closed()
