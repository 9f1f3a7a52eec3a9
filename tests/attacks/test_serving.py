"""What clients send to ``serve`` and ``app``: counted before it is read, and never answered for by everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import class_folders, tiny_cnn

pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed, so there is no service")

from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.saving import load
from seewhy.encoders.minilm import TOGETHER, load_minilm
from seewhy.encoders.text_tokens import LONGEST_TEXT, ClipText
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings
from seewhy.service.app.guard import Guard
from seewhy.service.serve import ServiceSettings, make_service
from seewhy.service.serve import service as served_models
from seewhy.service.serve.entrance import refuse
from seewhy.service.serve.service import Models


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    samples = load_samples(class_folders(tmp_path_factory.mktemp("classes") / "pictures"))
    return Linear(n_crops=0).fit(tiny_cnn(), samples)


@pytest.fixture(scope="module")
def service(fitted: Classifier) -> Iterator[TestClient]:
    with TestClient(make_service({"tiny": fitted}), base_url="http://localhost:8000") as client:
        yield client


def test_a_client_that_leaves_within_its_body_is_no_error_here(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Any] = []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        raise ClientDisconnect

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")], "query_string": b""}
    guard: Any = Guard(app, Settings(), refuse)
    asyncio.run(guard(scope, None, send))
    assert (sent, caplog.messages) == ([], [])


class Recorder:
    """A tokeniser that writes down how much it is given at once."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: list[tuple[int, int]] = []

    def encode_batch(self, texts: list[str]) -> Any:
        self.calls.append((len(texts), max(map(len, texts))))
        found = self.inner.encode_batch(texts)
        assert len({len(one.ids) for one in found}) > 1, "texts of unequal length are not padded"
        return found


def test_texts_of_unequal_length_are_tokenised_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = load_minilm()
    recorder = Recorder(sentences.tokenizer)
    monkeypatch.setattr(sentences, "tokenizer", recorder)
    monkeypatch.setattr(sentences, "module", lambda ids, _mask: torch.ones(len(ids), sentences.width))
    texts = ["a", "two words"] * 1000 + ["word " * 100_000]
    assert sentences.encode(texts).shape == (2001, sentences.width)
    assert sentences.n_cut(texts) == 1
    assert all(n <= TOGETHER and longest <= LONGEST_TEXT for n, longest in recorder.calls)


def test_a_tokeniser_of_others_gets_no_endless_text() -> None:
    lengths: list[int] = []

    def tokens(texts: list[str]) -> tuple[torch.Tensor]:
        lengths.extend(map(len, texts))
        return (torch.zeros(len(texts), 4),)

    def n_cut(texts: list[str]) -> int:
        lengths.extend(map(len, texts))
        return 0

    tower = ClipText("a", 1.0, torch.nn.Identity(), tokens, n_cut=n_cut)
    tower.encode_text(["a" * 1_000_000])
    tower.n_cut(["a" * 1_000_000])
    assert lengths == [LONGEST_TEXT] * 2


def half_copied(service: TestClient, other: Classifier, folder: Path) -> tuple[Models, Path, bytes]:
    """Another model lies in the folder, with half of its tensors, and was refused."""
    models = service.app.state.service.models  # type: ignore[attr-defined]
    other.save(folder)
    (tensors,) = folder.glob("*.safetensors")
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[: len(whole) // 2])
    models.reload()
    assert models.problems.keys() == {"tiny"}
    return models, tensors, whole


def test_a_model_that_was_copied_by_halves_is_taken_when_it_is_whole(
    fitted: Classifier, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fitted.save(tmp_path / "m")
    loads: list[Path] = []

    def load_counted(path: Path) -> Classifier:
        loads.append(path)
        return load(path, encoder=fitted.encoder)

    app = make_service({"tiny": folder}, ServiceSettings(reload_seconds=0), load=load_counted)
    with TestClient(app, base_url="http://localhost:8000") as service:
        other = replace(fitted, classes=tuple(map(str.upper, fitted.classes)), words=None)
        models, tensors, whole = half_copied(service, other, folder)
        models.reload()
        assert len(loads) == 2, "what did not change is not read again"
        tensors.write_bytes(whole[:-1])
        models.reload()
        assert len(loads) == 3
        tensors.write_bytes(whole)
        models.reload()
        assert (models.problems, models.all()[0].classifier.classes[0].isupper()) == ({}, True)
        half_copied(service, fitted, folder)
        n_loads, n_told = len(loads), len(caplog.messages)
        monkeypatch.setattr(served_models, "RETRY_SECONDS", 0.0)
        models.reload()
        assert (len(loads), len(caplog.messages)) == (n_loads + 1, n_told), "tried again, and not told again"
