"""The map: where points are, what is kept of it, and the columns that colour it."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gone_through import looked
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.pictures.samples import load_samples
from seewhy.service.app import map as maps
from seewhy.service.app.map import UNKNOWN, Arrangement, column, principal
from seewhy.service.app.rows import READ
from seewhy.storage.cache import cache_dir
from seewhy.studies.inspection.check import KINDS

Client = Callable[..., TestClient]


def test_positions_that_come_while_points_are_sent_are_asked_for_again() -> None:
    state: Any = SimpleNamespace(rows=known_rows())
    chart = maps.Map(state)
    chart.arrangement.start = lambda: None  # type: ignore[method-assign]

    class Positions(np.ndarray):
        def tobytes(self, *_: Any) -> bytes:
            chart.arrangement.version += 1
            return b""

    chart.arrangement.xy = np.zeros((40, 2), np.float32).view(Positions)
    assert chart.points().headers["x-version"] == "0"
    assert chart.arrangement.version == 1


def known_rows(n: int = 40, d: int = 12, seed: int = 0) -> Any:
    """Columns as those of pictures that were all looked at: two clouds of features."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(n, d)) + 4 * np.eye(d)[np.arange(n) % 2]
    encoder = SimpleNamespace(fingerprint="some encoder")
    return SimpleNamespace(
        items=[None] * n, n_done=n, problem="", features=features.astype(np.float16),
        state=np.full(n, READ, np.uint8), key=np.array([f"{i:016x}" for i in range(n)], "S16"),
        classifier=SimpleNamespace(encoder=encoder),
    )  # fmt: skip


@pytest.fixture
def embedding(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A stand-in of openTSNE: moves the first two components apart; counts how often it ran."""
    ran: list[int] = []

    class TSNE:
        def __init__(self, **options: Any) -> None:
            self.options = options

        def fit(self, x: np.ndarray) -> np.ndarray:
            ran.append(len(x))
            for step in range(0, 750, self.options["callbacks_every_iters"]):
                if self.options["callbacks"](step, 0.0, x[:, :2]):
                    break
            return x[:, :2].astype(np.float64) * 3

    scheme = SimpleNamespace(rescale=lambda x: x)
    monkeypatch.setitem(sys.modules, "openTSNE", SimpleNamespace(TSNE=TSNE, initialization=scheme))
    return ran


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))


def finished(rows: Any) -> Arrangement:
    made = Arrangement(rows)
    made.start()
    assert made._thread is not None
    made._thread.join(60)
    assert not made.working
    return made


def test_components_are_those_of_an_explicit_decomposition() -> None:
    features = known_rows(60, 20).features
    x = torch.from_numpy(features.astype(np.float64))
    x = x / x.norm(dim=1, keepdim=True)
    x = x - x.mean(0)
    u, s, axes = torch.linalg.svd(x, full_matrices=False)
    expected = (u * s)[:, :5]
    found = torch.from_numpy(principal(features, 5)).double()
    signs = axes[:5].gather(1, axes[:5].abs().argmax(1, keepdim=True))[:, 0].sign()  # the strongest entry is positive
    assert torch.allclose(found, expected * signs, atol=1e-4)
    torch.manual_seed(0)
    by_torch = torch.pca_lowrank(x, 15, center=False, niter=8)[1][:5]
    assert torch.allclose(found.norm(dim=0), by_torch, rtol=1e-3)


def test_components_of_a_part_place_all_rows_alike_each_time() -> None:
    features = known_rows(500).features
    part = principal(features, 2, fit_on=100)
    assert (part == principal(features, 2, fit_on=100)).all()
    whole = principal(features, 2)
    assert abs(np.corrcoef(part[:, 0], whole[:, 0])[0, 1]) > 0.99


@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (3, 2)])
def test_fewer_numbers_than_components_leave_the_rest_zero(n: int, d: int) -> None:
    found = principal(np.ones((n, d), np.float16), 4)
    assert found.shape == (n, 4)
    assert np.isfinite(found).all()
    assert (found[:, d:] == 0).all()


def test_a_map_is_kept_and_read_again(embedding: list[int]) -> None:
    first, again = (finished(known_rows()) for _ in range(2))
    assert embedding == [40]
    assert (first.method, first.kept, again.method, again.kept) == ("neighbours", False, "neighbours", True)
    assert (first.xy == again.xy).all()
    assert first.xy[0::2, 0].mean() * first.xy[1::2, 0].mean() < 0, "the two clouds are apart"


@pytest.mark.parametrize("change", ["a picture", "the encoder", "one that cannot be read"])
def test_other_pictures_or_another_encoder_have_another_map(embedding: list[int], change: str) -> None:
    finished(known_rows())
    rows = known_rows()
    if change == "a picture":
        rows.key[3] = b"f" * 16
    elif change == "the encoder":
        rows.classifier.encoder.fingerprint = "another encoder"
    else:
        rows.state[3] = 2
    made = finished(rows)
    assert len(embedding) == 2
    assert np.isnan(made.xy[3]).all() == (change == "one that cannot be read")


@pytest.mark.parametrize("damage", [b"", b"x" * 50, None])
def test_a_damaged_map_is_made_again(embedding: list[int], damage: bytes | None) -> None:
    first = finished(known_rows())
    (file,) = cache_dir("maps").iterdir()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data) if damage is None else damage)
    again = finished(known_rows())
    assert embedding == [40, 40]
    assert not again.kept
    assert (first.xy == again.xy).all()
    assert finished(known_rows()).kept, "and it was put in order"


def test_without_the_extra_the_components_stay_and_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    made = finished(known_rows())
    assert made.method == "components"
    assert np.isfinite(made.xy).all()
    assert made.note.endswith("needs the extra 'map', which is not installed. Run: pip install 'seewhy[map]'")


def test_a_page_that_closes_stops_the_map_and_keeps_none(embedding: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    made = Arrangement(known_rows())
    take = made._take

    def close(index: np.ndarray, found: np.ndarray, method: Any) -> None:
        take(index, found, method)
        if method == "neighbours":
            made._closed.set()

    monkeypatch.setattr(made, "_take", close)
    made._run()
    assert embedding == [40]
    assert made.note == ""
    assert not list(cache_dir("maps").iterdir())


def test_a_fault_is_said_on_the_page(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(maps, "principal", lambda *_: 1 / 0)
    assert finished(known_rows()).note.startswith("SeeWhy stopped computing the map.")
    assert "ZeroDivisionError" in caplog.text


def test_what_stopped_the_looking_is_said_and_the_map_waits_no_longer() -> None:
    rows = known_rows()
    rows.n_done, rows.problem = 20, "SeeWhy stopped predicting these pictures."
    made = finished(rows)
    assert made.to_json()["note"] == rows.problem
    assert not made.to_json()["working"]


def test_few_pictures_stay_as_the_components_place_them(embedding: list[int]) -> None:
    assert finished(known_rows(maps.FEWEST - 1)).method == "components"
    assert embedding == []


def test_the_libraries_own_map_puts_like_beside_like() -> None:
    pytest.importorskip("openTSNE", reason="the extra 'map' is not installed")
    xy = finished(known_rows(120)).xy
    far = np.linalg.norm(xy[:, None] - xy[None], axis=2) + 1e9 * np.eye(120)
    assert ((far.argmin(1) % 2) == (np.arange(120) % 2)).mean() > 0.95


def numbers(data: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data["values"]), "<u2")


@pytest.fixture
def page(client: Client, fitted: Classifier, wrong: Path, tmp_path: Path, embedding: list[int]) -> TestClient:
    samples = load_samples(wrong)
    decisions = open_decisions(tmp_path / "decided", samples.classes)
    made = client(fitted, data=wrong, corrections=Corrections(LabelledData(wrong, samples.items), decisions))
    looked(made)
    return made


def test_columns_say_what_the_rows_say(page: TestClient) -> None:
    given = page.get("/rows").json()["rows"]
    body = {"author": "Ann", "decision": "left_out", "places": [2]}
    assert page.post("/decide-many", json=body).status_code == 200
    words = {"right": {True: "right", False: "wrong"}}
    for name in ("label", "predicted", "right", "verdict"):
        data = page.get(f"/column?name={name}").json()
        names = [one["name"] for one in data["legend"]]
        expected = [words.get(name, {}).get(row[name], row[name]) for row in given]
        assert [names[k] for k in numbers(data)] == expected, name
        assert [one["n"] for one in data["legend"]] == [expected.count(one) for one in names]
    score = page.get("/column?name=score").json()
    found = numbers(score) / 65534 * (score["high"] - score["low"]) + score["low"]
    assert np.allclose(found, [row["score"] for row in given], atol=1e-4)
    decided = page.get("/column?name=decision").json()
    assert [decided["legend"][k]["name"] for k in numbers(decided)].count("left out") >= 1
    assert page.get("/column?name=age").status_code == 422


def test_findings_and_what_is_unknown(page: TestClient) -> None:
    rows = page.app.state.seewhy.rows  # type: ignore[attr-defined]
    kinds = list(KINDS)
    rows.findings[:3] = 1 << 2, (1 << 1) | (1 << 3), 0
    rows.state[4], rows.predicted[4], rows.score[4], rows.probability[4] = 0, -1, np.nan, np.nan
    found = column(rows, "finding", {})
    said = [found["legend"][k]["name"] for k in numbers(found)]
    assert said[:3] == [KINDS[kinds[2]].name, KINDS[kinds[1]].name, "none"]
    for name in ("predicted", "right", "verdict", "score"):
        assert numbers(column(rows, name, {}))[4] == UNKNOWN, name  # type: ignore[arg-type]
    rows.likeness[:], rows.likeness[4] = 0.5, np.nan
    assert set(numbers(column(rows, "likeness", {}))) == {0, UNKNOWN}, "equal values have one colour"


def test_the_rarest_of_many_classes_share_a_colour() -> None:
    labels = np.repeat(np.arange(30), np.arange(1, 31))
    made = maps._classes(labels, [f"c{i}" for i in range(30)], np.bincount(labels))
    assert [one["name"] for one in made["legend"]] == [f"c{i}" for i in range(29, 9, -1)] + ["others"]
    assert made["legend"][-1]["n"] == sum(range(1, 11))
    assert numbers(made)[0] == 20


def test_the_page_has_its_points_and_its_state(page: TestClient) -> None:
    html = page.get("/map").text
    assert '<a href="/map" aria-current="page">' in html
    assert '<option value="decision">Decision</option>' in html
    for _ in range(400):
        state = page.get("/map?format=json").json()
        if not state["working"]:
            break
        time.sleep(0.02)
    assert (state["n"], state["done"], state["working"]) == (10, 10, False)
    answer = page.get("/points")
    assert answer.headers["x-version"] == str(state["version"])
    xy = np.frombuffer(answer.content, "<f4").reshape(-1, 2)
    assert xy.shape == (10, 2)
    assert np.isfinite(xy).all()


def test_without_decisions_none_colours_the_points(client: Client, fitted: Classifier, wrong: Path) -> None:
    html = client(fitted, data=wrong).get("/map").text
    assert '<option value="label">' in html
    assert '<option value="decision">' not in html


def test_without_labelled_pictures_there_is_no_map(client: Client, fitted: Classifier) -> None:
    page = client(fitted)
    assert page.get("/map").status_code == 404
    assert 'href="/map"' not in page.get("/").text
