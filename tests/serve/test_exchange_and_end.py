"""How models are exchanged and how a service ends: each reload, signal and user by itself, without a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from test_reload_and_drain import renamed, service_of, wait_until

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.saving import CARD
from seewhy.encoders.stream import file_digest
from seewhy.errors import ModelError
from seewhy.service.app import Settings
from seewhy.service.serve import serving as servings
from seewhy.service.serve.entrance import Metrics
from seewhy.service.serve.service import Models, Reloader
from seewhy.service.serve.serving import DrainingServer

Client = Callable[..., TestClient]


def models_of(folder: Path, load: Callable[[Path], Classifier]) -> Models:
    return Models({"tiny": folder}, Settings(request_seconds=1.0), load, Metrics())


def test_a_folder_that_changes_while_it_is_loaded_is_loaded_again(fitted: Classifier, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "m")
    first, loaded = file_digest(folder / CARD), []

    def load(_folder: Path) -> Classifier:
        if not loaded:
            renamed(fitted).save(folder)
        loaded.append(file_digest(folder / CARD))
        return fitted

    models = models_of(folder, load)
    assert (models.all()[0].digest, first != file_digest(folder / CARD)) == (first, True)
    models.reload()
    assert models.all()[0].digest == loaded[-1] == file_digest(folder / CARD)
    models.reload()
    assert len(loaded) == 2, "what did not change is not loaded again"
    models.close()
    assert not models.all()[0].worker.is_alive


def test_a_model_that_was_refused_is_taken_once_another_was_between(fitted: Classifier, tmp_path: Path) -> None:
    one, two = fitted.save(tmp_path / "m"), renamed(fitted)
    refusing = [False]

    def load(_folder: Path) -> Classifier:
        if refusing[0]:
            raise ModelError("no memory")
        return fitted

    models = models_of(one, load)
    two.save(one)
    refused, refusing[0] = file_digest(one / CARD), True
    models.reload()
    assert models.problems == {"tiny": "no memory"}
    assert 'seewhy_reloads_total{model="tiny",outcome="refused"} 1.0' in models.metrics.text().decode()
    card = one / "seewhy.json"
    kept = card.read_bytes()
    card.unlink()
    models.reload()
    assert 'outcome="refused"} 1.0' in models.metrics.text().decode(), "a folder that is gone is not tried"
    refusing[0] = False
    replace(fitted, classes=("a", "b", "c"), words=None).save(tmp_path / "other")
    card.write_bytes((tmp_path / "other" / "seewhy.json").read_bytes())
    models.reload()
    assert models.problems == {}
    card.write_bytes(kept)
    models.reload()
    assert models.all()[0].digest == refused
    models.close()


def test_a_model_stays_until_the_last_of_its_users(fitted: Classifier) -> None:
    models = Models({"tiny": fitted}, Settings(), lambda _: fitted, Metrics())
    (model,) = models.all()
    model.enter()
    model.enter()
    model.leave()
    model.retire(0.2)  # gives up waiting
    assert not model.worker.is_alive
    again = Models({"tiny": fitted}, Settings(), lambda _: fitted, Metrics()).all()[0]
    again.enter()
    again.enter()
    ended = threading.Thread(target=again.retire, args=(20,))
    ended.start()
    again.leave()
    time.sleep(0.1)
    assert again.worker.is_alive
    again.leave()
    ended.join(5)
    assert (ended.is_alive(), again.worker.is_alive) == (False, False)


def test_a_service_that_is_told_loads_once_and_one_that_waits_does_not() -> None:
    told: list[bool] = []
    models: Any = SimpleNamespace(folders={"a": Path("a")}, reload=lambda force: told.append(force))
    loader = Reloader(models, 0)
    loader.start()
    time.sleep(0.2)
    assert told == []
    loader.tell()
    wait_until(lambda: bool(told), 5)
    time.sleep(0.2)
    loader.close()
    assert told == [True]


def test_what_ends_with_the_service(fitted: Classifier, tmp_path: Path, client: Client) -> None:
    read, write = os.pipe()
    service = client(fitted.save(tmp_path / "m"), log_to=write, reload_seconds=0.05)
    inner = service_of(service)
    service.get("/version")
    assert inner.reloader._thread.is_alive()
    service.__exit__(None, None, None)
    service.__exit__ = lambda *_: None  # type: ignore[method-assign]
    assert [inner.models.all()[0].worker.is_alive, inner.reloader._thread.is_alive(), inner.log._thread.is_alive()] == [
        False, False, False,
    ]  # fmt: skip
    os.close(write)
    with os.fdopen(read, "rb") as log:
        assert len(log.read().splitlines()) == 1


def stopping(drain: float, n_running: int = 1) -> tuple[DrainingServer, Any]:
    service: Any = SimpleNamespace(draining=False, n_running=n_running, settings=SimpleNamespace(drain_seconds=drain))
    return DrainingServer(uvicorn.Config(lambda: None), service), service


def test_the_first_signal_drains_and_the_second_ends() -> None:
    server, service = stopping(30)
    server.handle_exit(signal.SIGTERM, None)
    assert (service.draining, server.should_exit, server.force_exit) == (True, False, False)
    assert 29 < server.until - time.monotonic() < 31
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, True)


@pytest.mark.parametrize(
    ("drain", "running", "draining", "ends"),
    [(30, 0, False, False), (30, 0, True, True), (30, 1, True, False), (-1, 1, True, True)],
)
def test_when_a_service_ends(drain: float, running: int, draining: bool, ends: bool) -> None:
    server, _ = stopping(drain, running)
    if draining:
        server.handle_exit(signal.SIGTERM, None)
    server.config.load()
    asyncio.run(server.on_tick(1))
    assert server.should_exit is ends


def test_sighup_loads_again(fitted: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    service: Any = SimpleNamespace(
        settings=SimpleNamespace(web=Settings(port=0)),
        wake=lambda: told.append("wake"),
        reloader=SimpleNamespace(tell=lambda: told.append("reload")),
    )

    def hang_up(*_: Any, **__: Any) -> None:
        """What is set to hear it, hears it; a signal that was really raised has ended the tests' process."""
        heard: Any = signal.getsignal(signal.SIGHUP)
        heard(signal.SIGHUP, None)

    before = signal.signal(signal.SIGHUP, lambda *_: told.append("nobody"))
    monkeypatch.setattr(servings, "limited", lambda *_: uvicorn.Config(lambda: None))
    monkeypatch.setattr(DrainingServer, "run", hang_up)
    monkeypatch.setattr(servings, "decoder_with", lambda *_: SimpleNamespace(stop=lambda: told.append("stopped")))
    try:
        servings.run(SimpleNamespace(state=SimpleNamespace(service=service)), lambda url: told.append(url[:17]))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told == ["wake", "http://127.0.0.1:", "reload", "stopped"]
