"""Requests that mean harm, and many at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import hostile
from bombs import many_scans
from seewhy.classifiers.base import Classifier
from seewhy.encoders.stream import Encoded
from seewhy.errors import InputError, MissingExtraError
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings, make_app
from seewhy.service.app.guard import HEADERS, Guard
from seewhy.service.app.serving import address, listen
from seewhy.service.app.worker import IDLE, LATER, SOON, BusyError, Worker
from seewhy.types import Failure

Client = Callable[..., TestClient]


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000", "birds.example.org"])
def test_hosts_that_are_answered(client: Client, fitted: Classifier, host: str) -> None:
    page = client(fitted, names=("birds.example.org",))
    assert page.get("/help", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "a@b"])
def test_a_name_pointed_at_this_machine_is_not_answered(client: Client, fitted: Classifier, host: str) -> None:
    response = client(fitted).get("/?format=json", headers={"host": host})
    assert response.status_code == 421
    said = "This host name is not allowed. To allow it, start the server with --name NAME."
    assert response.json() == {"error": said}


OWN = "http://localhost:8000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": OWN}, 200),
        ({"origin": OWN, "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:9000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": OWN, "sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_only_the_pages_own_forms_change_anything(
    client: Client, fitted: Classifier, sky: bytes, headers: dict[str, str], status: int
) -> None:
    response = client(fitted).post("/look?format=json", files={"picture": ("a.png", sky)}, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
    ],
)
def test_other_pages_may_link_here_and_load_nothing(
    client: Client, fitted: Classifier, headers: dict[str, str], status: int
) -> None:
    assert client(fitted).get("/help", headers=headers).status_code == status


def test_two_pages_on_one_machine_keep_their_readers_apart(client: Client, by_words: Classifier, sky: bytes) -> None:
    """Browsers send cookies to every port of a machine, so the second page must not take the first one's cookie."""
    page = client(by_words)
    card = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()["card"]
    page.post(f"{card}/edit?format=json", data={"label": "moss", "texts": "red"})
    app = make_app(by_words)
    other = TestClient(app, base_url="http://localhost:8001", cookies=page.cookies)
    other.get("/")
    app.state.seewhy.worker.close()
    page.cookies.update(other.cookies)
    assert page.get("/descriptions").json()["moss"] == ["red"]
    assert len(page.cookies) == 2


def test_strangers_do_not_push_out_a_readers_edits(client: Client, by_words: Classifier, sky: bytes) -> None:
    page = client(by_words, n_sessions=3)
    card = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()["card"]
    page.post(f"{card}/edit?format=json", data={"label": "moss", "texts": "red"})
    for _ in range(5):
        stranger = TestClient(page.app, base_url="http://localhost:8000")
        stranger.get("/")
        assert stranger.post("/look?format=json", files={"picture": ("b.png", sky)}).status_code == 200
    state = page.app.state.seewhy  # type: ignore[attr-defined]
    assert (len(state.readers), len(state.editors)) == (3, 1)
    assert page.get("/descriptions").json()["moss"] == ["red"]


def test_every_answer_carries_the_headers(client: Client, fitted: Classifier) -> None:
    page = client(fitted)
    stranger = page.get("/", headers={"host": "evil.example"})
    answers = [page.get("/"), page.get("/nothing"), stranger, page.get("/app.js")]
    assert [a.status_code for a in answers] == [200, 404, 421, 200]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    cookie = answers[0].headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_no_page_asks_for_anything_elsewhere(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted)
    card = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()["card"]
    for path in ("/", card, "/mistakes", "/help", "/nothing"):
        assert "http://" not in page.get(path).text.replace("http://www.w3.org", "")
        assert "https://" not in page.get(path).text


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted, max_upload=1000)
    response = page.post("/look?format=json", files={"picture": ("a.png", sky)})
    assert response.status_code == 413
    assert response.json() == {
        "error": (
            "The request is larger than the limit of 0.001 MB. Send a smaller picture, or start with --set max_upload."
        )
    }


def test_a_refusal_before_routing_is_json_where_the_route_answers_with_json(
    client: Client, fitted: Classifier, wrong: Path, tmp_path: Path
) -> None:
    samples = load_samples(wrong)
    decided = open_decisions(tmp_path / "decided", samples.classes)
    page = client(
        fitted, data=wrong, corrections=Corrections(LabelledData(wrong, samples.items), decided), max_upload=9
    )
    for path in ("/rows", "/decide-many", "/history/a", "/card/a/words", "/refit/start"):
        method = page.post if path in ("/decide-many", "/refit/start") else page.get
        for headers, status in (
            ({"host": "evil.example"}, 421),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"content-length": "10"}, 413),
        ):
            answer = method(path, headers=headers)
            assert answer.status_code == status, path
            assert set(answer.json()) == {"error"}, path
    for path in ("/browse", "/nothing", "/selection.csv"):
        assert page.get(path, headers={"host": "evil.example"}).text.startswith("<!doctype html>"), path
        assert set(page.get(f"{path}?format=json", headers={"host": "evil.example"}).json()) == {"error"}


def test_a_body_of_unknown_length_is_cut_off(client: Client, fitted: Classifier) -> None:
    page = client(fitted, max_upload=1000)
    sent: list[int] = []

    def endless() -> Any:
        yield b'--x\r\ncontent-disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        for i in range(100):
            sent.append(i)
            yield bytes(100)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert page.post("/look?format=json", content=endless(), headers=headers).status_code == 413


def test_bodies_are_bounded_together_and_let_go_again(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted, max_held=2 * len(sky))
    answer = page.post("/look?format=json", files={"picture": ("a.png", sky + bytes(2 * len(sky)))})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json() == {"error": "Too many pictures are arriving at once. Try again in a few seconds."}
    for _ in range(5):
        assert page.post("/look?format=json", files={"picture": ("a.png", sky)}).status_code == 200


def ask(app: Any, receive: Callable[..., Any], path: str = "/look", method: str = "POST") -> list[dict[str, Any]]:
    """One request to an ASGI app, with a body that the test times itself."""
    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b"format=json"}
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "http_version": "1.1", "scheme": "http", "root_path": ""}, receive, send))
    return sent


def test_a_body_that_never_comes_is_given_up(fitted: Classifier) -> None:
    app = make_app(fitted, Settings(body_seconds=0.1))

    async def silence() -> None:
        await asyncio.sleep(60)

    assert ask(app, silence)[0]["status"] == 408
    app.state.seewhy.worker.close()


def test_an_answer_that_never_comes_is_given_up_and_an_error_leaves_no_trace() -> None:
    from seewhy.service.app.base import refuse

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret")

    async def empty() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    late = ask(Guard(slow, Settings(request_seconds=0.05), refuse), empty)
    assert (late[0]["status"], late[1]["body"]) == (
        504,
        b'{"error":"The answer took more than the limit of 0.05 seconds. Try again."}',
    )
    failed = ask(Guard(broken, Settings(), refuse), empty)
    assert failed[0]["status"] == 500
    assert b"secret" not in failed[1]["body"]
    assert b"Traceback" not in failed[1]["body"]


def test_hostile_pictures_are_named_and_harm_nothing(
    client: Client, fitted: Classifier, sky: bytes, tmp_path: Path
) -> None:
    outcomes = hostile.make_hostile_folder(tmp_path)
    page = client(fitted)
    tried = 0
    for name, outcome in outcomes.items():
        path = tmp_path / name
        if not path.is_file() or path.stat().st_size > 5_000_000 or not os.access(path, os.R_OK) or "link" in name:
            continue
        data = path.read_bytes()
        if data.startswith(b"\x00\x00\x00") and name.endswith(".heic"):
            continue  # what is said depends on an extra
        response = page.post("/look?format=json", files={"picture": (name, data)})
        tried += 1
        if outcome is None:
            assert response.status_code == 200, (name, response.text)
        elif not data:
            assert "The form has no picture." in response.json()["error"]
        else:
            assert response.status_code == 422, name
            assert outcome in response.json()["error"], name
        assert str(tmp_path) not in response.text
    assert tried > 50
    assert page.post("/look?format=json", files={"picture": ("a.png", sky)}).status_code == 200


TEXT_FIELD = b'--x\r\ncontent-disposition: form-data; name="picture"\r\n\r\n/etc/passwd\r\n--x--'


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b"--x", "multipart/form-data"),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (TEXT_FIELD, "multipart/form-data; boundary=x"),
        (b"picture=/etc/passwd", "application/x-www-form-urlencoded"),
        (b'{"picture": "/etc/passwd"}', "application/json"),
        (b"\xff" * 100, "multipart/form-data; boundary=\xff".encode("latin-1").decode("latin-1")),
    ],
)
def test_what_is_no_upload_is_refused(client: Client, fitted: Classifier, body: bytes, type: str) -> None:
    response = client(fitted).post("/look?format=json", content=body, headers={"content-type": type.encode("latin-1")})
    assert response.status_code == 422
    assert "Send a form of the type multipart/form-data with" in response.json()["error"]


@pytest.mark.parametrize("path", ["/card/..%2f..%2fetc%2fpasswd", "/sample/../../etc/passwd", "/sample/-1", "/app.css"])
def test_no_path_of_a_client_is_a_file(client: Client, fitted: Classifier, folders: Path, path: str) -> None:
    response = client(fitted, data=folders).get(path)
    assert response.status_code in (404, 422)
    assert "root:" not in response.text


def test_many_at_once_are_looked_at_together(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted, gather_seconds=0.2)
    worker = page.app.state.seewhy.worker  # type: ignore[attr-defined]

    def send(i: int) -> tuple[int, str]:
        files = {"picture": (f"{i}.png", sky + bytes([i]))}
        response = page.post("/look?format=json", files=files)
        return response.status_code, response.json()["image"]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))
    assert answers == [(200, f"{i}.png") for i in range(50)]
    assert sum(worker.batches) == 50
    assert max(worker.batches) > 1
    assert max(worker.batches) <= 16


def test_the_worker_takes_the_urgent_first_and_no_more_than_it_can(fitted: Classifier, sky: bytes) -> None:
    import threading

    worker = Worker(fitted.encoder, Settings(n_waiting=3))
    done: list[str] = []
    hold, started = threading.Event(), threading.Event()
    first = worker.do(lambda: (started.set(), hold.wait(30)))
    assert started.wait(30)
    jobs = [
        worker.do(lambda name=name: done.append(name), urgency)
        for name, urgency in (("idle", IDLE), ("later", LATER), ("soon", SOON))
    ]  # type: ignore[misc]
    with pytest.raises(BusyError, match="3 requests are already waiting"):
        worker.do(lambda: None)
    looks = [worker.look(data, name) for data, name in ((sky, "a"), (b"no", "b"))]
    hold.set()
    results = [look.result(30) for look in looks]
    assert isinstance(results[0], Encoded)
    assert results[0].name == "a"
    assert isinstance(results[1], Failure)
    assert results[1].image == "b"
    first.result(30)
    for job in jobs:
        job.result(30)
    assert done == ["soon", "later", "idle"]
    failing = worker.do(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(30)
    assert worker.do(lambda: 7).result(30) == 7
    worker.close()
    with pytest.raises(BusyError, match="is stopping"):
        worker.look(sky, "late")


def test_too_many_are_turned_away(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted, n_waiting=0)
    response = page.post("/look?format=json", files={"picture": ("a.png", sky)})
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


def test_a_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert port > 0
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1, port {port}: address already in use"):
            listen("127.0.0.1", port)
    assert address("0.0.0.0", 5) == "http://127.0.0.1:5/"
    assert address("::1", 5) == "http://[::1]:5/"


def test_without_the_extra_it_says_which(fitted: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "seewhy.service.app.pages", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\[app\]'"):
        make_app(fitted)


def test_one_hostile_and_one_normal_upload_at_once(
    client: Callable[..., TestClient], fitted: Classifier, sky: bytes
) -> None:
    page = client(fitted)
    answers: dict[str, tuple[int, str]] = {}

    def send(name: str, data: bytes) -> None:
        done = page.post("/look?format=json", files={"picture": (name, data)})
        answers[name] = done.status_code, done.json().get("error", "")

    threads = [threading.Thread(target=send, args=pair) for pair in (("bad.jpg", many_scans(400)), ("good.png", sky))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers["good.png"] == (200, "")
    assert answers["bad.jpg"] == (422, "bad.jpg: has more than 64 scans; save it again")
