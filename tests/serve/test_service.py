"""What the service answers: decisions, evidence, errors of one picture, counts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from forms import files, png
from planting import reader
from schemas import check
from seewhy.classifiers.base import Classifier
from seewhy.encoders.stream import Encoded
from seewhy.errors import InputError
from seewhy.pictures.images import read_picture
from seewhy.service.app import Settings
from seewhy.service.app.worker import MOST_IN_ROW, Worker
from seewhy.service.serve import ServiceSettings
from seewhy.service.serve.entrance import Rates

Client = Callable[..., TestClient]
TOKEN = "0123456789abcdef"


def scores(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[one["score"] for one in sorted(row["top"], key=lambda t: t["label"])] for row in rows])


def test_several_together_are_as_each_alone_and_as_in_python(
    client: Client, fitted: Classifier, pictures: list[bytes]
) -> None:
    service = client(fitted)
    together = service.post("/predict", files=files(*pictures)).json()
    alone = [service.post("/predict", files=files(one)).json()["pictures"][0] for one in pictures]
    images = [np.asarray(Image.open(io.BytesIO(one))) for one in pictures]
    mine = [one.to_json() for one in fitted.predict(images)]
    assert [row["image"] for row in together["pictures"]] == [f"{i}.png" for i in range(6)]
    assert [row["label"] for row in together["pictures"]] == [row["label"] for row in mine]
    assert np.abs(scores(together["pictures"]) - scores(alone)).max() < 1e-5
    assert np.abs(scores(together["pictures"]) - scores(mine)).max() < 1e-5
    assert together["pictures"][0]["decision"].keys() == mine[0]["decision"].keys()
    check("serve-predict", [together])


def test_clients_share_batches_and_each_gets_its_own(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted, {"gather_seconds": 0.3})
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda one: service.post("/predict", files=files(one)).json()["pictures"][0], pictures))
    together = service.post("/predict", files=files(*pictures)).json()["pictures"]
    assert np.abs(scores(rows) - scores(together)).max() < 1e-5
    assert max(service.app.state.service.models.all()[0].worker.batches) > 1  # type: ignore[attr-defined]


def test_a_broken_picture_is_an_error_of_its_own(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted)
    answer = service.post("/predict", files=files(pictures[0], b"no picture", b"", pictures[1]))
    rows = answer.json()["pictures"]
    assert answer.status_code == 200
    assert ["error" in row for row in rows] == [False, True, True, False]
    assert rows[1]["image"] == "1.png"
    check("serve-predict", [answer.json()])
    alone = service.post("/predict", files=files(b"no picture"))
    assert alone.status_code == 422
    assert alone.json()["error"].startswith("0.png: ")
    assert [row["image"] for row in alone.json()["pictures"]] == ["0.png"]
    counted = service.get("/metrics").text
    assert 'seewhy_pictures_total{model="tiny",outcome="failed"} 3.0' in counted
    assert 'seewhy_pictures_total{model="tiny",outcome="answered"} 2.0' in counted


def test_planted_evidence_is_found_through_the_service(client: Client) -> None:
    """The model reads one quadrant; a picture that is bright there alone is explained by that quadrant."""
    model = reader("cnn", region=True)
    side = model.encoder.transform.input_size[0]
    view = np.full((side, side, 3), 20, np.uint8)
    view[: side // 2, : side // 2] = 250
    row = client(model).post("/predict?explain=where", files=files(png(view))).json()["pictures"][0]
    heat = np.array(row["explanation"]["where"]["heat"]).clip(min=0)
    assert heat.sum() > 0
    assert heat[: heat.shape[0] // 2, : heat.shape[1] // 2].sum() > 0.9 * heat.sum()
    assert not {"like", "words", "model"} & set(row["explanation"])


def test_evidence_comes_where_it_is_wanted(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted)
    answer = service.post("/predict?explain=where,like,words&top=2", files=files(pictures[0], b"x", pictures[1]))
    check("serve-predict", [answer.json()])
    rows = answer.json()["pictures"]
    explained = {**rows[0], **rows[0]["explanation"], "model": fitted.provenance()}
    del explained["explanation"]
    check("explanation", [explained])
    assert rows[0]["explanation"]["where"]["deletion"] is None
    assert all("/" not in near["image"] for near in rows[0]["explanation"]["like"])
    assert "explanation" not in rows[1]
    assert len(rows[2]["top"]) == 2
    other = service.post("/predict?explain=where&target=moss&contrast=sky", files=files(pictures[1]))
    where = other.json()["pictures"][0]["explanation"]["where"]
    assert (where["target"], where["contrast"]) == ("moss", "sky")
    card = service.post("/predict?format=html", files=files(pictures[0]))
    assert card.headers["content-type"].startswith("text/html")
    assert "Where it looked" in card.text
    still = service.post("/predict?format=png", files=files(pictures[0]))
    assert Image.open(io.BytesIO(still.content)).format == "PNG"


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [True, False])
def test_maps_are_measured_where_that_is_wanted_and_allowed(
    client: Client, fitted: Classifier, pictures: list[bytes], allowed: bool
) -> None:
    service = client(fitted, {"measure": allowed})
    answer = service.post("/predict?explain=where&measure=true", files=files(pictures[1])).json()
    assert (answer["pictures"][0]["explanation"]["where"]["deletion"] is not None) == allowed


@pytest.mark.parametrize(
    ("query", "n", "status", "said"),
    [
        (
            "?explain=why",
            1,
            422,
            "`explain` must be where, like, words, separated by commas, got 'why'.",
        ),
        ("?model=birds", 1, 404, "There is no model called 'birds'. Known: tiny."),
        ("?format=html", 2, 422, "requires one picture, got 2. Send one, or leave out format."),
        ("?target=moss", 1, 422, "`target`, `contrast` and `measure` require explain=where. Add it."),
        ("?explain=where&target=bee", 1, 422, "bee"),
        ("?top=0", 1, 422, "top: "),
        ("", 5, 422, "Send a form of the type multipart/form-data with 1 to 4 files in the field 'picture'."),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    client: Client, fitted: Classifier, pictures: list[bytes], query: str, n: int, status: int, said: str
) -> None:
    answer = client(fitted, n_pictures=4).post(f"/predict{query}", files=files(*pictures[:n]))
    assert answer.status_code == status
    assert said in answer.json()["error"]
    check("serve-error", [answer.json()])


def test_an_address_is_never_fetched(client: Client, fitted: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    service = client(fitted)
    answer = service.post("/predict", data={"picture": "http://localhost:9/a.png"}, files=[("other", b"x")])
    assert answer.status_code == 422
    assert "The form has no picture." in answer.json()["error"]
    named = service.post("/predict", files=[("picture", ("file:///etc/passwd", b"http://localhost:9/a.png"))])
    assert named.status_code == 422


def test_two_models_each_with_its_name(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client({"first": fitted, "second": reader("cnn", region=True)})
    told = service.get("/version").json()
    check("serve-version", [told])
    assert [model["name"] for model in told["models"]] == ["first", "second"]
    assert told["limits"]["pictures"] == 32
    answers = [service.post(f"/predict{q}", files=files(pictures[0])).json() for q in ("", "?model=second")]
    assert [answer["model"]["name"] for answer in answers] == ["first", "second"]
    assert answers[0]["model"]["digest"] == fitted.digest


def test_only_the_token_lets_in(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted, token=TOKEN)
    for header in ("", "Bearer", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"):
        answer = service.post("/predict", files=files(pictures[0]), headers={"authorization": header.encode("latin-1")})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), header
    for path in ("/metrics", "/version", "/openapi.json", "/none"):
        assert service.get(path).status_code == 401
    for path in ("/healthz", "/readyz"):
        assert service.get(path).status_code == 200
    assert service.get("/version", headers={"authorization": f"bearer {TOKEN}"}).status_code == 200


def test_other_machines_need_a_token_unless_that_is_said() -> None:
    with pytest.raises(InputError) as caught:
        ServiceSettings(Settings(host="0.0.0.0"))
    assert str(caught.value) == (
        "A token is required, because other machines can reach 0.0.0.0. Give --token-file "
        "FILE or set SEEWHY_TOKEN; --no-token serves everybody."
    )
    assert ServiceSettings(Settings(host="0.0.0.0"), open_without_token=True).token is None
    assert TOKEN not in repr(ServiceSettings(Settings(host="0.0.0.0"), token=TOKEN))
    with pytest.raises(
        InputError,
        match=(
            r"printable ASCII characters without spaces, got 5 characters\. Make one with: openssl " r"rand -hex 32"
        ),
    ):
        ServiceSettings(token="short")


def test_too_large_too_often_and_too_many_are_told_apart(
    client: Client, fitted: Classifier, pictures: list[bytes]
) -> None:
    small = client(fitted, {"max_upload": 1000})
    assert small.post("/predict", files=files(b"x" * 2000)).status_code == 413
    often = client(fitted, rate=2)
    answers = [often.get("/version") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert often.get("/healthz").status_code == 200
    full = client(fitted, {"n_waiting": 2})
    gate, begun = threading.Event(), threading.Event()
    worker = full.app.state.service.models.all()[0].worker  # type: ignore[attr-defined]
    running = worker.do(lambda: begun.set() or gate.wait(20))
    begun.wait(20)
    answer = full.post("/predict", files=files(*pictures))
    gate.set()
    running.result(20)
    worker.do(lambda: None).result(20)
    assert sum(worker.batches) == 0, "what came with the one that was refused is not looked at"
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_rate_fills_evenly_and_a_household_is_one() -> None:
    rates = Rates(60)
    assert [rates.wait("10.0.0.1") for _ in range(60)] == [0.0] * 60
    assert 0 < rates.wait("10.0.0.1") <= 1
    assert rates.wait("10.0.0.2") == 0
    for i in range(60):
        rates.wait(f"2001:db8::{i:x}")
    assert rates.wait("2001:db8::ffff") > 0
    assert rates.wait("2001:db8:0:1::1") == 0


def test_the_log_has_a_line_per_request_with_its_id(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    read, write = os.pipe()
    service = client(fitted, log_to=write, token=TOKEN)
    known = {"authorization": f"Bearer {TOKEN}"}
    sent = service.post("/predict", files=files(pictures[0], b"x"), headers={**known, "x-request-id": "abc-1"})
    assert sent.headers["x-request-id"] == "abc-1"
    odd = service.get("/version", headers={**known, "x-request-id": "a b"})
    assert len(odd.headers["x-request-id"]) == 32
    service.get("/n\u2028one", headers={"x-request-id": "x" * 200})
    service.app.state.service.log.close()  # type: ignore[attr-defined]
    os.close(write)
    with os.fdopen(read, "rb") as log:
        text = log.read()
    lines = [json.loads(line) for line in text.splitlines()]
    assert text.isascii()
    assert TOKEN not in text.decode()
    assert [line["id"] for line in lines[:2]] == ["abc-1", odd.headers["x-request-id"]]
    assert len(lines[2]["id"]) == 32
    assert [line["status"] for line in lines] == [200, 200, 401]
    assert [lines[0][key] for key in ("method", "path", "model", "pictures", "failed")] == [
        "POST", "/predict", "tiny", 2, 1,
    ]  # fmt: skip
    assert lines[0]["bytes_in"] > len(pictures[0])
    check("serve-log", lines)


def test_a_full_disk_under_the_log_stops_nothing(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    service = client(fitted, log_to=full)
    for _ in range(3):
        assert service.post("/predict", files=files(pictures[0])).status_code == 200
    service.app.state.service.log.close()  # type: ignore[attr-defined]
    os.close(full)
    assert "seewhy_log_lines_dropped_total 3.0" in service.app.state.service.metrics.text().decode()  # type: ignore[attr-defined]


def test_a_log_that_nobody_reads_holds_nobody_up(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(1000))
    os.set_blocking(write, True)
    service = client(fitted, log_to=write)
    for _ in range(3):
        assert service.post("/predict", files=files(pictures[0])).status_code == 200
    os.close(read)
    service.app.state.service.log.close()  # type: ignore[attr-defined]
    os.close(write)


def test_who_waits_for_evidence_has_a_turn_between_batches(fitted: Classifier, pictures: list[bytes]) -> None:
    worker = Worker(fitted.encoder, Settings(batch=1, gather_seconds=0))
    gate, begun = threading.Event(), threading.Event()
    worker.do(lambda: begun.set() or gate.wait(20))
    begun.wait(20)
    view = read_picture(pictures[0], fitted.encoder.transform)
    looks = [worker.look(view, "a.png") for _ in range(10)]
    job = worker.do(lambda: len(worker.batches))
    gate.set()
    assert job.result(20) == MOST_IN_ROW
    assert all(isinstance(look.result(20), Encoded) for look in looks)
    worker.close()


def test_a_batch_waits_for_what_is_coming_and_for_nothing_else(fitted: Classifier, pictures: list[bytes]) -> None:
    worker = Worker(fitted.encoder, Settings(gather_seconds=60))
    view = read_picture(pictures[0], fitted.encoder.transform)
    assert isinstance(worker.look(view, "alone").result(20), Encoded)
    with worker.coming(), worker.coming():
        first, second = worker.look(view, "first"), worker.look(view, "second")
        time.sleep(0.2)
        assert not first.done()
    assert [isinstance(one.result(20), Encoded) for one in (first, second)] == [True, True]
    with worker.coming():  # one that turned out to be broken: no look follows
        third = worker.look(view, "third")
    assert isinstance(third.result(20), Encoded)
    assert list(worker.batches) == [1, 2, 1]
    worker.close()


def test_metrics_count_by_route_and_not_by_address(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted)
    service.post("/predict", files=files(pictures[0]))
    for i in range(3):
        service.get(f"/nothing/{i}")
    text = service.get("/metrics").text
    assert 'seewhy_requests_total{method="POST",path="/predict",status="200"} 1.0' in text
    assert 'seewhy_requests_total{method="GET",path="other",status="404"} 3.0' in text
    assert 'seewhy_batch_pictures_count{model="tiny"} 1.0' in text
    assert 'seewhy_waiting{model="tiny"} 0.0' in text
    assert "nothing" not in text


def test_health_follows_the_worker(client: Client, fitted: Classifier) -> None:
    service = client(fitted)
    assert service.get("/healthz").json() == {"alive": True}
    service.app.state.service.models.all()[0].worker.close()  # type: ignore[attr-defined]
    assert service.get("/healthz").status_code == 503
    assert service.get("/readyz").json() == {"ready": False}


def test_while_it_is_stopped_nothing_new_is_taken(client: Client, fitted: Classifier, pictures: list[bytes]) -> None:
    service = client(fitted)
    service.app.state.service.draining = True  # type: ignore[attr-defined]
    refused = service.post("/predict", files=files(pictures[0]))
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "5", "close")
    assert [service.get(path).status_code for path in ("/readyz", "/healthz", "/metrics")] == [503, 200, 200]
