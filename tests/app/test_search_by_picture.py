"""The grid sorted by similarity to a picture: one of the data, or one that a reader brings."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gone_through import looked
from PIL import Image
from starlette.testclient import TestClient

from bombs import many_scans
from seewhy.classifiers.base import Classifier
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings, make_app
from seewhy.service.app.browse import MOST_MATCHES
from seewhy.service.app.rows import Rows
from tiny import picture

Client = Callable[..., TestClient]


@pytest.fixture
def page(client: Client, fitted: Classifier, wrong: Path) -> TestClient:
    made = client(fitted, data=wrong)
    looked(made)
    return made


def rows_of(page: TestClient) -> Rows:
    return page.app.state.seewhy.rows  # type: ignore[attr-defined,no-any-return]


def brought(page: TestClient, data: bytes, name: str = "mine.png") -> dict[str, Any]:
    answer = page.post("/look?format=json", files={"picture": (name, data)})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def similar(page: TestClient, like: str, **more: Any) -> dict[str, Any]:
    answer = page.get("/rows", params={"like": like, "count": 100, "places": True, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def cosines(page: TestClient, query: np.ndarray) -> np.ndarray:
    vectors = rows_of(page).features.astype(np.float32)  # type: ignore[union-attr]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors @ (query / np.linalg.norm(query)))


def test_a_picture_of_the_data_puts_the_most_similar_first(page: TestClient) -> None:
    rows = rows_of(page)
    assert rows.key[7] in rows.key[:7], "of copies, the first is named"
    assert similar(page, rows.key[7].decode())["like"]["card"] == f"/sample/{rows.key.tolist().index(rows.key[7])}"
    found = similar(page, rows.key[5].decode())
    expected = cosines(page, rows.pooled(np.array([5]))[0].numpy())
    assert found["like"] == {"image": rows.names[5], "card": "/sample/5", "thumbnail": "/sample/5/thumbnail"}
    order = expected[found["places"]]
    assert (np.diff(order) <= 1e-5).all()
    assert order[0] > order[-1] + 1e-3
    assert [row["similarity"] for row in found["rows"]] == pytest.approx(order.tolist(), abs=1e-3)
    plain = page.get("/rows").json()
    assert plain["like"] is None
    assert "similarity" not in plain["rows"][0]
    assert "Leave out `words` or `like`" in page.get("/rows?like=a&words=a").json()["error"]


def test_a_picture_that_is_not_in_the_data_sorts_the_grid(page: TestClient, sky: bytes, fitted: Classifier) -> None:
    card = brought(page, sky)
    found = similar(page, card["id"])
    address = f"/card/{card['id']}"
    assert found["like"] == {"image": "mine.png", "card": address, "thumbnail": f"{address}/thumbnail"}
    pooled = page.app.state.seewhy.pictures.get(card["id"]).seen.pooled[0].numpy()  # type: ignore[attr-defined]
    assert (np.diff(cosines(page, pooled)[found["places"]]) <= 1e-5).all()
    assert Image.open(io.BytesIO(page.get(found["like"]["thumbnail"]).content)).size == (32, 32)
    assert page.get("/card/unknown/thumbnail").status_code == 404
    assert similar(page, card["id"], label="sky")["n"] == 3, "with the other filters"
    assert len(rows_of(page).items) == 10, "it is no row of the data"


def test_a_picture_of_the_data_that_is_brought_finds_itself(page: TestClient) -> None:
    item = rows_of(page).items[4]
    found = similar(page, brought(page, Path(item.image).read_bytes())["id"])
    assert found["rows"][0]["image"] == Path(item.image).name
    assert found["rows"][0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_what_is_not_predicted_comes_last(page: TestClient, sky: bytes) -> None:
    rows, mine = rows_of(page), brought(page, sky)["id"]
    rows.state[3], rows.n_done = 0, 9
    assert similar(page, mine)["places"][-1] == 3
    rows.state[3], rows.n_done = 1, 10
    assert similar(page, mine)["places"][-1] != 3, "a search that is kept is not out of date"


def test_an_address_means_the_same_picture_after_the_data_change(
    client: Client, fitted: Classifier, wrong: Path
) -> None:
    page = client(fitted, data=wrong)
    looked(page)
    row = page.get("/rows?start=5&count=1").json()["rows"][0]
    first = Path(rows_of(page).items[0].image)
    first.unlink()
    Image.fromarray(picture("moss", 99)).save(wrong / "moss" / "00-first.png")
    Image.fromarray(picture("moss", 98)).save(wrong / "moss" / "00-second.png")
    again = client(fitted, data=wrong)
    looked(again)
    found = similar(again, row["key"])
    assert found["like"]["image"] == row["image"]
    assert found["like"]["card"] != "/sample/5"
    assert found["rows"][0]["key"] == row["key"]
    gone = again.get(f"/rows?like={'0' * 16}")
    assert gone.status_code == 404
    assert gone.json()["error"].startswith("The picture to compare with is no longer in the data.")
    assert "no longer has the picture" in again.get("/rows?like=5").json()["error"], "an index is no picture"


def test_while_pictures_are_predicted_a_key_may_come_later(
    fitted: Classifier, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rows, "start", lambda _: None)
    with TestClient(make_app(fitted, data=load_samples(wrong)), base_url="http://localhost:8000") as page:
        answer = page.get(f"/rows?like={'0' * 16}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "has not been predicted yet" in answer.json()["error"]


def test_a_picture_that_left_the_memory_is_said_to_have(
    client: Client, fitted: Classifier, wrong: Path, sky: bytes
) -> None:
    page = client(fitted, data=wrong, n_pictures=2)
    looked(page)
    first, *_ = [brought(page, sky, f"{i}.png")["id"] for i in range(3)]
    answer = page.get(f"/rows?like={first}")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "The server no longer has the picture to compare with. Choose it again, or press Remove."
    }


def test_two_people_search_at_once_and_memory_is_bounded(page: TestClient, sky: bytes) -> None:
    moss = io.BytesIO()
    Image.fromarray(picture("moss", 50)).save(moss, "PNG")
    ids = [brought(page, data)["id"] for data in (sky, moss.getvalue())]
    before = [similar(page, one)["places"] for one in ids]
    assert before[0] != before[1]
    for i in range(MOST_MATCHES + 3):
        similar(page, brought(page, sky, f"{i}.png")["id"])
    assert [similar(page, one)["places"] for one in ids] == before


@pytest.fixture
def small(fitted: Classifier, wrong: Path) -> Iterator[TestClient]:
    app = make_app(fitted, Settings(max_upload=300_000), data=load_samples(wrong))
    with TestClient(app, base_url="http://localhost:8000") as page:
        yield page


def test_what_cannot_be_searched_by_is_refused_and_nothing_is_kept(small: TestClient, wrong: Path, sky: bytes) -> None:
    files = {path: path.stat().st_mtime_ns for path in wrong.rglob("*")}
    for data, status, says in (
        (sky[: len(sky) // 2], 422, "mine.png"),
        (b"no picture, a text", 422, "mine.png"),
        (b"", 422, "The form has no picture."),
        (many_scans(100), 422, "more than 64 scans"),
        (bytes(400_000), 413, "larger than the limit of 0.3 MB"),
    ):
        answer = small.post("/look?format=json", files={"picture": ("mine.png", data)})
        assert answer.status_code == status
        assert says in answer.json()["error"]
    pictures = small.app.state.seewhy.pictures  # type: ignore[attr-defined]
    assert len(pictures) == 0
    deep, turned = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(deep, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = np.zeros((40, 40, 3), np.uint8)
    halves[:, 20:] = 255
    Image.fromarray(halves).save(turned, "JPEG", exif=exif)
    looked(small)
    for kept in (deep, turned):
        assert len(similar(small, brought(small, kept.getvalue())["id"])["places"]) == 10
    thumbnail = small.get(f"/card/{brought(small, turned.getvalue())['id']}/thumbnail").content
    seen = np.asarray(Image.open(io.BytesIO(thumbnail)))
    assert seen[:12].mean() < 50 < 200 < seen[-12:].mean(), "upright"
    assert {path: path.stat().st_mtime_ns for path in wrong.rglob("*")} == files


def test_a_card_leads_to_pictures_similar_to_its_own(page: TestClient, sky: bytes) -> None:
    mine = brought(page, sky)["id"]
    assert f'<a href="/browse?like={mine}">Show similar pictures in the grid</a>' in page.get(f"/card/{mine}").text
    key = rows_of(page).key[2].decode()
    card = page.get("/sample/2?format=json").json()["card"]
    assert f'<a href="/browse?like={key}">' in page.get(card).text


def test_without_labelled_pictures_a_card_leads_to_no_grid(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted)
    assert "/browse" not in page.get(f"/card/{brought(page, sky)['id']}").text
