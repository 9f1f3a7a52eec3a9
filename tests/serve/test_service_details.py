"""What the service keeps to in the small: torn log lines, rates by their formula, who has to wait, what is counted."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from test_kserve import INFER, asks, text
from test_reload_and_drain import service_of

from forms import files
from planting import reader
from seewhy.classifiers.base import Classifier
from seewhy.errors import InputError
from seewhy.explanation.base import Explanation
from seewhy.service.app import Settings
from seewhy.service.serve import ServiceSettings, entrance
from seewhy.service.serve.entrance import AccessLog, Metrics, Rates

Client = Callable[..., TestClient]
TOKEN = "0123456789abcdef"


class Disk:
    """A file that takes a few bytes at a time, and at times none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *takes: int | None) -> None:
        self.takes, self.data = list(takes), b""
        monkeypatch.setattr(entrance.os, "write", self.write)

    def write(self, _to: int, data: bytes) -> int:
        n = self.takes.pop(0) if self.takes else 1000
        if n is None:
            raise OSError("full")
        self.data += data[:n]
        return min(n, len(data))


def test_a_line_is_written_whole_however_little_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, dropped = Disk(monkeypatch, 3, 2, 1), []
    log = AccessLog(7, lambda: dropped.append(1))
    log.write({"a": "bcdefgh"})
    log.close()
    assert (disk.data, dropped) == (b'{"a": "bcdefgh"}\n', [])


def test_after_a_torn_line_the_next_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, dropped = Disk(monkeypatch, 3, None), []
    log = AccessLog(7, lambda: dropped.append(1))
    for number in (1, 2, 3):
        log.write({"n": number})
    log.close()
    assert (disk.data, dropped) == (b'{"n\n{"n": 2}\n{"n": 3}\n', [1])


def test_what_a_slow_disk_cannot_take_is_counted_and_waited_for_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, dropped = threading.Event(), []
    monkeypatch.setattr(entrance, "MOST_WAITING", 2)
    monkeypatch.setattr(entrance.os, "write", lambda _to, data: gate.wait(5) and len(data))
    log = AccessLog(7, lambda: dropped.append(1))
    threading.Timer(1.5, gate.set).start()
    for number in range(6):
        log.write({"n": number})
    assert not gate.is_set()
    gate.set()
    log.close()
    assert len(dropped) >= 3


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(entrance, "time", made)
    return made


def test_a_rate_by_its_formula(clock: Clock) -> None:
    """Six a minute: one every ten seconds, and never more than six at once."""
    rates = Rates(6)
    assert [rates.wait("a") for _ in range(6)] == [0.0] * 6
    assert rates.wait("a") == pytest.approx(10)
    clock.now += 4
    assert rates.wait("a") == pytest.approx(6)
    clock.now += 6.001
    assert [rates.wait("a") > 0 for _ in range(2)] == [False, True]
    clock.now += 1000
    assert [rates.wait("a") > 0 for _ in range(7)] == [False] * 6 + [True]


def test_a_rate_below_one_a_minute_lets_the_first_in(clock: Clock) -> None:
    rates = Rates(0.5)
    assert rates.wait("a") == 0
    assert rates.wait("a") == pytest.approx(120)
    clock.now += 120.001
    assert rates.wait("a") == 0


def test_each_address_has_a_rate_of_its_own_whatever_its_form(clock: Clock) -> None:
    rates = Rates(1)
    assert [rates.wait(one) > 0 for one in ("10.0.0.1", "10.0.0.2", "name", "10.0.0.1", "name")] == [False] * 3 + [
        True
    ] * 2
    assert rates.wait("fe80::1%eth0") == 0
    assert rates.wait("fe80::2%eth1") > 0


def test_how_long_to_wait_is_rounded_up_and_who_looks_after_it_never_waits(
    client: Client, fitted: Classifier, clock: Clock
) -> None:
    service = client(fitted, rate=2)
    paths = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
    assert [service.get(path).status_code for path in paths] == [200] * 4
    assert [service.get("/version").status_code for _ in range(3)] == [200, 200, 429]
    clock.now += 29.5
    assert service.get("/version").headers["retry-after"] == "1"
    assert [service.get(path).status_code for path in paths] == [200] * 4


def test_who_looks_after_it_needs_no_token_and_sees_it_stop(client: Client, fitted: Classifier) -> None:
    service, known = client(fitted, token=TOKEN), {"authorization": f"Bearer {TOKEN}"}
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert service.get(path).status_code == 200
    service_of(service).draining = True
    assert service.get("/version", headers=known).status_code == 200
    assert service.get("/v2", headers=known).status_code == 503
    ready = service.get("/v2/models/tiny/ready", headers=known)
    assert ready.status_code == 503


def test_a_model_that_died_is_neither_alive_nor_ready(client: Client, fitted: Classifier) -> None:
    service = client({"first": fitted, "second": reader("cnn", region=True)})
    service_of(service).models.all()[1].worker.close()
    for path, said in (
        ("/healthz", {"alive": False}), ("/readyz", {"ready": False}),
        ("/v2/health/live", {"live": False}), ("/v2/health/ready", {"ready": False}),
        ("/v2/models/second/ready", {"name": "second", "ready": False}),
    ):  # fmt: skip
        answer = service.get(path)
        assert (answer.status_code, answer.json()) == (503, said)
    assert service.get("/v2/models/first/ready").json() == {"name": "first", "ready": True}


def test_the_log_and_the_metrics_count_bodies_and_running_requests(client: Client, fitted: Classifier) -> None:
    read, write = os.pipe()
    service = client(fitted, log_to=write)
    body = json.dumps(asks(text(b"no picture"), text(b"none"))).encode()
    parts = [body[:10], body[10:50], body[50:]]
    answer = service.post(INFER, content=iter(parts), headers={"content-type": "application/json"})
    assert answer.status_code == 422
    shape = [1, 3, *fitted.encoder.transform.input_size]
    values = [0.5] * int(np.prod(shape))
    assert service.post(INFER, json=asks(*values, name="pixels", datatype="FP32", shape=shape)).status_code == 200
    service.request("PURGE", "/" + "x" * 900)
    counted = service.get("/metrics").text
    assert "seewhy_running 1.0" in counted
    assert 'seewhy_requests_total{method="other",path="other",status="404"} 1.0' in counted
    service_of(service).log.close()
    os.close(write)
    with os.fdopen(read, "rb") as log:
        lines = [json.loads(line) for line in log.read().splitlines()]
    assert (lines[0]["bytes_in"], lines[0]["bytes_out"]) == (len(body), len(answer.content))
    assert [(line["model"], line["pictures"], line["failed"]) for line in lines[:2]] == [("tiny", 2, 0), ("tiny", 1, 0)]
    assert (len(lines[2]["path"]), lines[2]["method"], lines[2]["model"]) == (500, "PURGE", None)


def test_pictures_that_failed_are_in_the_log(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    read, write = os.pipe()
    service = client(fitted, log_to=write)
    assert service.post(INFER, json=asks(text(pictures[0]), text(b"none"))).status_code == 200
    service_of(service).log.close()
    os.close(write)
    with os.fdopen(read, "rb") as log:
        (line,) = (json.loads(line) for line in log.read().splitlines())
    assert (line["model"], line["pictures"], line["failed"]) == ("tiny", 2, 1)


def test_time_in_the_engine_is_seconds(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted)
    service.post("/predict", files=files(*pictures))
    told = re.findall(r'seewhy_batch_(seconds|pictures)_sum\{model="tiny"\} (\S+)', service.get("/metrics").text)
    found = {name: float(value) for name, value in told}
    assert found["pictures"] == 6
    worker = service_of(service).models.all()[0]
    metrics = Metrics()
    replaced = type(worker)("x", fitted, "", Settings(), metrics)
    replaced.worker._on_batch(6, 0.25)  # type: ignore[misc]
    replaced.worker.close()
    assert 'seewhy_batch_seconds_sum{model="x"} 0.25' in metrics.text().decode()
    assert found["seconds"] > 0


@pytest.mark.parametrize(
    ("query", "status"),
    [("?measure=true", 422), ("?format=html&target=moss", 200), ("?top=1000", 200), ("?top=1001", 422)],
)
def test_what_goes_with_what(
    client: Client, fitted: Classifier, pictures: list[bytes], query: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Explanation, "to_html", lambda _: "a card")
    assert client(fitted).post(f"/predict{query}", files=files(pictures[0])).status_code == status


def test_blanks_between_kinds_of_evidence_do_not_count(
    client: Client, fitted: Classifier, pictures: list[bytes]
) -> None:
    answer = client(fitted).post("/predict?explain=where,%20where%20,", files=files(pictures[0]))
    assert answer.status_code == 200
    found = answer.json()["pictures"][0]["explanation"]
    assert "where" in found
    assert "like" not in found


def test_a_card_of_a_broken_picture_is_an_error(client: Client, fitted: Classifier) -> None:
    for form in ("html", "png"):
        answer = client(fitted).post(f"/predict?format={form}", files=files(b"no picture"))
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("0.png: ")


def test_a_method_that_an_address_has_not_is_told_with_those_it_has(client: Client, fitted: Classifier) -> None:
    answer = client(fitted).get("/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_pixels_in_several_batches_stay_in_order(client: Client, fitted: Classifier) -> None:
    shape = [5, 3, *fitted.encoder.transform.input_size]
    pixels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sent = asks(*pixels.flatten().tolist(), name="pixels", datatype="FP32", shape=shape)
    found = []
    for batch in (1, 2, 16):
        answer = client(fitted, {"batch": batch}).post(INFER, json=sent).json()
        found.append(next(one["data"] for one in answer["outputs"] if one["name"] == "probabilities"))
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], atol=1e-5)
    rows = np.reshape(found[0], (5, -1))
    assert len({row.tobytes() for row in rows}) == 5


def test_what_a_model_takes_is_said_in_the_order_it_takes(client: Client) -> None:
    model = reader("cnn", region=True)
    told = client(model).get("/v2/models/tiny").json()
    height, width = model.encoder.transform.input_size
    assert [(one["name"], one["shape"]) for one in told["inputs"]] == [
        ("picture", [-1]),
        ("pixels", [-1, 3, height, width]),
    ]


def test_requests_of_another_form_are_told(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service, size = client(fitted, n_pictures=2), fitted.encoder.transform.input_size
    assert service.post(INFER, json=asks(text(pictures[0]), id="x" * 200)).json()["id"] == "x" * 200
    nested = {
        "inputs": [{"name": "picture", "datatype": "BYTES", "shape": [1, 2], "data": [[*map(text, pictures[:2])]]}]
    }
    assert service.post(INFER, json=nested).status_code == 200
    broken = text(pictures[0])[:20] + "!" + text(pictures[0])[20:]
    both = service.post(INFER, json=asks(text(pictures[0]), broken)).json()["outputs"]
    assert [bool(one) for one in both[-1]["data"]] == [False, True], "base64 is read as it is written, or not at all"
    shape = [1, 3, *size]
    for body, said in (
        (asks(text(pictures[0]), id="x" * 201), "id of the request is invalid:"),
        (
            asks(*[0.0] * (3 * 3 * size[0] * size[1]), name="pixels", datatype="FP32", shape=[3, 3, *size]),
            "pictures, got 3. Send several requests.",
        ),
        (asks(*[True] * (3 * size[0] * size[1]), name="pixels", datatype="FP32", shape=shape), "must be"),
        (
            {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [1], "data": "x"}]},
            "picture.data of the request is invalid",
        ),
    ):
        answer = service.post(INFER, json=body)
        assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.text


def test_a_broken_picture_has_no_class(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    answer = client(fitted).post(INFER, json=asks(text(b"none"), text(pictures[0]))).json()
    found = {one["name"]: one["data"] for one in answer["outputs"]}
    assert (found["label"][0], found["score"][0]) == ("", 0.0)
    assert (bool(found["label"][1]), found["score"][1] > 0) == (True, True)
    assert found["probabilities"][: len(fitted.classes)] == [0.0] * len(fitted.classes)


def test_limits_are_those_of_the_settings() -> None:
    web = Settings(
        max_upload=1, max_held=2, n_waiting=3, batch=4, gather_seconds=0.5, body_seconds=6.0, request_seconds=7.0,
        decode_seconds=8,
    )  # fmt: skip
    assert ServiceSettings(web, n_pictures=9, rate=10.0).limits() == {
        "pictures": 9, "bytes": 1, "bytes_together": 2, "requests_a_minute": 10.0, "waiting": 3, "batch": 4,
        "wait_seconds": 0.5, "body_seconds": 6.0, "answer_seconds": 7.0, "decode_seconds": 8,
    }  # fmt: skip


@pytest.mark.parametrize("token", ["a" * 15, "a" * 16 + " b", "a" * 16 + "\n", "a" * 16 + "é"])
def test_a_token_is_long_and_plain(token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^The token must have at least 16 printable ASCII characters"):
        ServiceSettings(token=token)
    assert ServiceSettings(token="a" * 16).token == "a" * 16
