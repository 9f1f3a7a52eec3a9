"""What clients send to ``serve`` and ``app``: counted before it is read, and never answered for by everybody else."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from seewhy.service.serve import ServiceSettings, kserve, make_service
from seewhy.service.serve import service as served_models
from seewhy.service.serve.entrance import refuse
from seewhy.service.serve.service import Models

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    samples = load_samples(class_folders(tmp_path_factory.mktemp("classes") / "pictures"))
    return Linear(n_crops=0).fit(tiny_cnn(), samples)


@pytest.fixture(scope="module")
def service(fitted: Classifier) -> Iterator[TestClient]:
    with TestClient(make_service({"tiny": fitted}), base_url="http://localhost:8000") as client:
        yield client


def tensor(data: str, shape: str = "[1]", name: str = "picture", datatype: str = "BYTES") -> bytes:
    return f'{{"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}'.encode()


def many(one: str, n: int = 2_000_000) -> str:
    return "[" + ",".join([one] * n) + "]"


@pytest.mark.parametrize(
    "body",
    [
        tensor(many("1"), "[1,3,32,32]", "pixels", "FP32"),
        tensor(many("[]"), "[1,3,32,32]", "pixels", "FP32"),
        tensor(many('""')),
        tensor('["aGk="]', many("2")),
        many("{}").encode(),
        ("{" + ",".join(f'"{i}":1' for i in range(400_000)) + "}").encode(),
        b'{"inputs":' * 1_000_000,
        b"[" * 10_000_000,
    ],
    ids=["numbers", "lists", "texts", "axes", "objects", "keys", "deep objects", "deep lists"],
)
def test_json_of_more_values_than_pictures_have_is_not_read(
    service: TestClient, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(kserve, "parse_json", lambda _: pytest.fail("it was read"))
    answer = service.post(INFER, content=body)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(
        "The body must have at most 32 files, or their pixels, but it has more lists, texts "
        "or numbers. Send several requests."
    )


def test_a_shape_of_many_axes_is_not_multiplied(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kserve.math, "prod", lambda _: pytest.fail("it was multiplied"))
    answer = service.post(INFER, content=tensor('["aGk="]', json.dumps([2**62] * 5000)))
    assert "picture.shape" in answer.json()["error"]


def test_nothing_of_a_request_is_kept_but_its_pictures(service: TestClient) -> None:
    model = service.app.state.service.models.all()[0]  # type: ignore[attr-defined]
    pixels, *rest = kserve._read(
        tensor("[" + ",".join(["1e0"] * 3 * 32 * 32) + "]", "[1,3,32,32]", "pixels", "FP32"), model, 1
    )
    assert isinstance(pixels, torch.Tensor)
    assert pixels.nbytes == 4 * 3 * 32 * 32
    assert rest == [set(), None]


@pytest.mark.parametrize(
    "data",
    ['["' + "a" * 100_000 + '",' + "1," * 3070 + "1]", "[[1],[2,3]]", "[1,[2]]", "[true]", "[" * 900 + "1" + "]" * 900],
)
def test_what_is_no_number_is_given_no_room(service: TestClient, data: str) -> None:
    """A text of 100,000 signs among 3,071 numbers had 1.2 GB of room made, one of 10,000 among 500,000 had 20."""
    tracemalloc.start()
    answer = service.post(INFER, content=tensor(data, "[1,3,32,32]", "pixels", "FP32"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.json()["error"] == "The data of 'pixels' must be 3072 numbers, as its shape says."
    assert most < 50_000_000


@pytest.mark.parametrize("shape", ["[1,3,32,32]", "[2,3,32,32]"])
def test_numbers_may_be_nested(service: TestClient, shape: str) -> None:
    nested = np.zeros(json.loads(shape)).tolist()
    for data, status in ((nested, 200), (np.ravel(nested).tolist(), 200), ([nested], 422)):
        answer = service.post(INFER, content=tensor(json.dumps(data), shape, "pixels", "FP32"))
        assert answer.status_code == status


@pytest.mark.parametrize("own", ["\\ud800", "\\u0000", "\\n"])
def test_an_id_that_cannot_be_written_is_refused(service: TestClient, own: str) -> None:
    answer = service.post(INFER, content=tensor('["aGk="]')[:-1] + f',"id":"{own}"}}'.encode())
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("id of the request is invalid:")


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
