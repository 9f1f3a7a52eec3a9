"""A new model is taken whole or not at all; a service that is stopped answers what runs and takes nothing new."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from forms import files
from seewhy.classifiers.base import Classifier
from seewhy.service.app import Settings
from seewhy.service.app.serving import limited, listen
from seewhy.service.serve import ServiceSettings, make_service
from seewhy.service.serve.service import Service
from seewhy.service.serve.serving import DrainingServer

Client = Callable[..., TestClient]


def renamed(model: Classifier) -> Classifier:
    """The same with its classes' names in capitals, so that one sees which one answers."""
    return replace(model, classes=tuple(name.upper() for name in model.classes), words=None)


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def label(service: TestClient, picture: bytes) -> str:
    answer = service.post("/predict", files=files(picture))
    assert answer.status_code == 200
    return str(answer.json()["pictures"][0]["label"])


def service_of(client: TestClient) -> Service:
    found: Service = client.app.state.service  # type: ignore[attr-defined]
    return found


def test_a_changed_folder_is_loaded_again(
    client: Client, fitted: Classifier, pictures: list[bytes], tmp_path: Path
) -> None:
    folder = fitted.save(tmp_path / "m")
    service = client(folder, reload_seconds=0.05)
    assert label(service, pictures[0]) == "moss"
    first = service.get("/version").json()["models"][0]["digest"]
    renamed(fitted).save(folder)
    wait_until(lambda: label(service, pictures[0]) == "MOSS")
    assert service.get("/version").json()["models"][0]["digest"] != first
    assert 'seewhy_reloads_total{model="tiny",outcome="taken"} 1.0' in service.get("/metrics").text


def test_a_folder_that_does_not_load_whole_leaves_the_old_model(
    client: Client, fitted: Classifier, pictures: list[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fitted.save(tmp_path / "m")
    whole = shutil.copytree(folder, tmp_path / "whole")
    service = client(folder, reload_seconds=0)
    models = service_of(service).models
    old = models.all()[0]
    renamed(fitted).save(folder)
    tensors = next(folder.glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-7])
    models.reload()
    models.reload()
    assert label(service, pictures[0]) == "moss"
    assert len(caplog.messages) == 1, "said once, not at every look"
    assert caplog.messages[0].startswith("model 'tiny' could not be reloaded, so the old one is still used: ")
    assert service.get("/version").json()["models"][0]["problem"] in caplog.messages[0]
    assert 'seewhy_stale{model="tiny"} 1.0' in service.get("/metrics").text
    shutil.rmtree(folder)
    models.reload()
    assert models.all() == [old], "a folder that is gone is no new model"
    shutil.copytree(whole, folder)
    models.reload()
    assert models.all() == [old], "nothing changed"
    models.reload(force=True)
    assert service.get("/version").json()["models"][0]["problem"] is None
    assert models.all() != [old]
    assert not old.worker.is_alive


def test_who_uses_the_old_model_may_finish(client: Client, fitted: Classifier, tmp_path: Path) -> None:
    service = service_of(client(fitted.save(tmp_path / "m"), reload_seconds=0))
    with service.models.use("tiny") as old:
        reload = threading.Thread(target=service.models.reload, kwargs={"force": True})
        reload.start()
        wait_until(lambda: service.models.all()[0] is not old)
        assert old.worker.do(lambda: 7).result(5) == 7
        assert reload.is_alive()
    reload.join(10)
    assert not old.worker.is_alive


class Running:
    """A service on a real socket, in a thread."""

    def __init__(self, model: Classifier, **settings: Any) -> None:
        self.app = make_service({"tiny": model}, ServiceSettings(Settings(port=0), **settings))
        self.service: Service = self.app.state.service
        self.listening = listen("127.0.0.1", 0)
        self.port = self.listening.getsockname()[1]
        self.server = DrainingServer(limited(self.app, self.service.settings.web), self.service)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]})
        self.thread.start()
        wait_until(lambda: self.server.started)

    def ask(self, path: str, picture: bytes | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if picture is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, form(picture), {"content-type": "multipart/form-data; boundary=x"})
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found


def form(picture: bytes) -> bytes:
    head = b'--x\r\ncontent-disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    return head + picture + b"\r\n--x--\r\n"


@pytest.fixture
def running(fitted: Classifier) -> Iterator[Callable[..., Running]]:
    opened: list[Running] = []

    def make(**settings: Any) -> Running:
        opened.append(Running(fitted, **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.server.should_exit = one.server.force_exit = True
        one.thread.join(20)
        one.listening.close()
        one.service.close()


def held(service: Service) -> threading.Event:
    """Holds the model's thread until the event is set."""
    gate, begun = threading.Event(), threading.Event()
    service.models.all()[0].worker.do(lambda: (begun.set(), gate.wait(20)))
    begun.wait(20)
    return gate


def test_what_runs_is_answered_and_what_is_new_is_refused(
    running: Callable[..., Running], pictures: list[bytes]
) -> None:
    one = running()
    gate = held(one.service)
    found: list[tuple[int, Any]] = []
    client = threading.Thread(target=lambda: found.append(one.ask("/predict", pictures[0])))
    client.start()
    wait_until(lambda: one.service.n_running == 1)
    one.server.handle_exit(signal.SIGTERM, None)
    assert one.ask("/readyz") == (503, {"ready": False})
    assert one.ask("/healthz")[0] == 200
    assert one.ask("/predict", pictures[0])[0] == 503
    time.sleep(0.3)
    assert one.thread.is_alive()
    gate.set()
    client.join(20)
    one.thread.join(20)
    assert [(status, body["pictures"][0]["label"]) for status, body in found] == [(200, "moss")]
    assert not one.thread.is_alive()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", one.port), timeout=1)


@pytest.mark.slow
def test_what_runs_too_long_is_not_waited_for(running: Callable[..., Running], pictures: list[bytes]) -> None:
    one = running(drain_seconds=0.2)
    one.server.config.timeout_graceful_shutdown = 1
    gate = held(one.service)
    with socket.create_connection(("127.0.0.1", one.port)) as client:
        body = form(pictures[0])
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        client.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body)
        wait_until(lambda: one.service.n_running == 1)
        one.server.handle_exit(signal.SIGTERM, None)
        threading.Timer(2.5, gate.set).start()
        one.thread.join(15)
        assert b"200 OK" not in client.recv(10_000)
    assert not one.thread.is_alive()


def test_a_client_that_leaves_frees_its_place(running: Callable[..., Running], pictures: list[bytes]) -> None:
    one = running()
    gate = held(one.service)
    worker = one.service.models.all()[0].worker
    body = form(pictures[0])
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", one.port)) as client:
            client.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body)
            wait_until(lambda: worker.n_waiting > 0)
    wait_until(lambda: one.service.n_running == 0)
    gate.set()
    assert one.ask("/predict", pictures[0])[0] == 200
    assert sum(worker.batches) == 1, "pictures of clients that left are not looked at"
    text = one.service.metrics.text().decode()
    assert 'seewhy_requests_total{method="POST",path="/predict",status="499"} 3.0' in text


def test_slow_clients_hold_nobody_up(running: Callable[..., Running], pictures: list[bytes]) -> None:
    one = running()
    slow = []
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", one.port))
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\nContent-Type: ")
        slow.append(client)
        other = socket.create_connection(("127.0.0.1", one.port))
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n"
        other.sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n")
        slow.append(other)
    start = time.monotonic()
    assert one.ask("/predict", pictures[0])[0] == 200
    assert time.monotonic() - start < 10
    for client in slow:
        client.close()
