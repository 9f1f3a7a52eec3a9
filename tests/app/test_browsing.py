"""Labelled pictures on the page: mistakes by pair and one by one, and what edited words change on all of them."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gone_through import looked
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.cli.options import grouped_samples
from seewhy.descriptions.base import Change
from seewhy.errors import DataError
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings, make_app
from seewhy.service.app.mistakes import PAIRS_A_PAGE, PICTURES_A_PAGE, Listing, Mistakes
from seewhy.service.app.rows import Rows
from seewhy.service.app.state import changes_between, with_texts
from seewhy.service.app.worker import Worker

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

from edit_words import Edit, EditWordsStudy

Client = Callable[..., TestClient]


def test_mistakes_are_filtered_and_ordered(
    client: Client, fitted: Classifier, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = client(fitted, data=wrong)
    found = looked(page)
    assert [(c["true"], c["predicted"], c["n"]) for c in found["confusions"]] == [
        ("moss", "sky", 4),
        ("moss", "rust", 2),
    ]
    assert (found["found"], found["order"], found["page"], found["pages"]) == (6, "pairs", 1, 1)
    pair = page.get("/mistakes?true=moss&predicted=sky&format=json").json()
    assert (pair["order"], pair["found"], pair["confusions"]) == ("surest", 4, [])
    assert {(p["true"], p["predicted"]) for p in pair["pictures"]} == {("moss", "sky")}
    surest = page.get("/mistakes?order=surest&format=json").json()["pictures"]
    doubts = [p["doubt"] for p in surest]
    assert len(doubts) == 6
    assert doubts == sorted(doubts)
    text = page.get("/mistakes?order=surest").text
    assert ("unlike anything it knows" in text) == any(doubt > 1 for doubt in doubts)
    by_key = {row["key"]: row["probability"] for row in page.get("/rows?count=100").json()["rows"]}
    assert [p["probability"] for p in surest] == [by_key[p["key"]] for p in surest]
    least = page.get("/mistakes?order=least_sure&format=json").json()["pictures"]
    assert [p["card"] for p in least] == [p["card"] for p in surest[::-1]]
    assert page.get("/mistakes?true=sky&format=json").json()["found"] == 0
    text = page.get("/mistakes?true=sky").text
    assert "No such mistake" in text
    assert '<option value="sky" selected>' in text
    unknown = page.get("/mistakes?true=mos&format=json")
    assert unknown.status_code == 422
    assert "Did you mean 'moss'?" in unknown.json()["error"]
    assert page.get("/mistakes?order=size&format=json").status_code == 422
    link = "/mistakes?true=moss&amp;predicted=sky&amp;order=surest"
    assert link not in page.get("/mistakes").text, "all are shown"
    monkeypatch.setattr("seewhy.service.app.pages.THUMBS_A_PAIR", 3)
    assert link in page.get("/mistakes").text


@pytest.fixture
def many(fitted: Classifier, folders: Path) -> Mistakes:
    """Far more mistakes than fit on a page."""
    worker = Worker(fitted.encoder, Settings())
    rows = Rows(fitted, load_samples(folders), worker, None)
    worker.close()
    classes = tuple(f"c{i}" for i in range(30))
    pairs = [(t, p) for t in classes for p in classes if t != p][: PAIRS_A_PAGE + 5]
    keys = ("true", "predicted", "card")
    wrong = [dict(zip(keys, (*pairs[i % len(pairs)], f"/sample/{i}"), strict=True)) for i in range(99, -1, -1)]
    return type("Listed", (Mistakes,), {"found": wrong})(rows)


def test_long_lists_come_a_page_at_a_time(many: Mistakes) -> None:
    first, last = (many.to_json(Listing(page=p)) for p in (1, 99))
    assert (first["page"], first["pages"], len(first["confusions"])) == (1, 2, PAIRS_A_PAGE)
    assert (last["page"], len(last["confusions"])) == (2, 5)
    listed = [many.to_json(Listing(order="surest", page=p))["pictures"] for p in (1, 2, 3)]
    assert [len(p) for p in listed] == [PICTURES_A_PAGE, PICTURES_A_PAGE, 4]
    assert [p["card"] for part in listed for p in part] == [f"/sample/{i}" for i in range(99, -1, -1)]


def test_a_mistakes_card_says_its_label_and_asks_the_question(client: Client, fitted: Classifier, wrong: Path) -> None:
    page = client(fitted, data=wrong)
    address = looked(page)["confusions"][0]["pictures"][0]["card"]
    assert page.get(f"{address}?format=json").json()["labelled"] == "moss"
    text = page.get(address).text
    assert "Its label is <b>moss</b>" in text
    assert '<a href="?target=sky&amp;contrast=moss">What is the evidence for sky rather than moss?</a>' in text


@pytest.fixture
def table(wrong: Path) -> Path:
    """The same pictures with a group each."""
    path = wrong / "table.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "text", "country"))
        for i, picture in enumerate(sorted(wrong.rglob("*.png"))):
            writer.writerow((picture, picture.parent.name, f"caption {i}", "AT" if i % 2 else "CH"))
    return path


def test_what_words_change_is_told_for_all_by_group_and_by_picture(by_words: Classifier, table: Path) -> None:
    samples = grouped_samples(table, "image", "label", "country")
    app = make_app(by_words, data=samples)
    with TestClient(app, base_url="http://localhost:8000") as page:
        looked(page)
        assert page.get("/changes?format=json").json() == {
            "missing": "You have not edited any descriptions.",
            "cure": "Edit some on a card first.",
        }
        card = page.get("/sample/0?format=json").json()["card"]
        words = {"label": "moss", "texts": "blue with clouds\nabove the roofs"}
        said = page.post(f"{card}/edit?format=json", data=words).json()["on_data"]
        found = page.get("/changes?format=json").json()
        assert (said["n"], said["accuracy"], said["page"]) == (10, found["accuracy"], "/changes")
        assert sum(said["flips"].values()) == len(found["flips"]) > 0
        assert [g["group"] for g in found["groups"]] == ["AT", "CH"]
        assert found["changes"] == [
            {"label": "moss", "before": "soft green cushions", "after": "blue with clouds"},
            {"label": "moss", "before": "grows on stones", "after": "above the roofs"},
        ]
        flip = found["flips"][0]
        assert "/" not in flip["image"]
        assert page.get(f"{flip['card']}?format=json").json()["labelled"] == flip["label"]
        text = page.get("/changes").text
        assert f'href="{flip["card"]}"><span class="framed"><img src="{flip["card"]}/thumbnail"' in text
        assert str(table.parent) not in text
        assert "gap between groups" in text
        assert f"On {said['n']} labelled pictures" in page.get(card).text
        page.post(f"{card}/reset")
        assert "You have not edited any descriptions. Edit some on a card first." in page.get("/changes").text


def test_the_page_measures_what_the_study_measures(by_words: Classifier, wrong: Path) -> None:
    study = EditWordsStudy(Edit(remove=("grows on stones",))).run(by_words, load_samples(wrong)).data
    with TestClient(make_app(by_words, data=load_samples(wrong)), base_url="http://localhost:8000") as page:
        looked(page)
        card = page.get("/sample/0?format=json").json()["card"]
        page.post(f"{card}/edit", data={"label": "moss", "texts": "soft green cushions"})
        found = page.get("/changes?format=json").json()
    for key in ("accuracy", "per_class", "n", "decides", "changes", "sentence", "settings"):
        assert found[key] == study[key], key
    assert [f["kind"] for f in found["flips"]] == [f["kind"] for f in study["flips"]]


def test_words_that_made_the_classifier_are_measured_on_the_labelled_pictures(
    client: Client, by_words: Classifier, wrong: Path
) -> None:
    """Nothing has measured them before: they alone made it."""
    page = client(by_words, data=wrong)
    state = page.app.state.seewhy  # type: ignore[attr-defined]
    for _ in range(500):
        if state.measured:
            break
        time.sleep(0.02)
    found = page.get("/sample/0?format=json").json()
    assert [w["text"] for w in found["words"] if w.get("separates") is None] == []
    assert found["words_measured"]["accuracy_on"].startswith("10 labelled pictures")
    assert state.classifier.held_out.pooled.shape[0] == 10
    assert by_words.held_out is None
    edited = page.post(f"{found['card']}/edit?format=json", data={"label": "moss", "texts": "green"}).json()
    assert edited["on_data"]["n"] == 10
    after = page.get(f"{found['card']}?format=json").json()["words_measured"]
    assert after["accuracy_on"] == found["words_measured"]["accuracy_on"], "and edited words are measured the same way"


def test_what_stops_the_browsing_is_in_the_log(
    fitted: Classifier, folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("seewhy.service.app.rows.encode_stream", broken)
    with TestClient(make_app(fitted, data=load_samples(folders)), base_url="http://localhost:8000") as page:
        for _ in range(200):
            if problem := page.get("/mistakes?format=json").json()["problem"]:
                break
            time.sleep(0.02)
    assert problem == (
        "SeeWhy stopped predicting these pictures. The server's log says why. Fix the cause and start the page again."
    )
    assert "the disk is full" in caplog.text


def test_sentences_that_went_and_came_stand_side_by_side(by_words: Classifier) -> None:
    edited = with_texts(by_words, {"moss": ["grows on stones", "green", "soft"], "rust": ["on old iron"]})
    assert changes_between(by_words, edited) == [
        Change("moss", "soft green cushions", "green"),
        Change("moss", "", "soft"),
        Change("rust", "a brown flaking crust", None),
    ]


def test_without_pictures_it_says_what_it_takes(client: Client, by_words: Classifier, sky: bytes) -> None:
    page = client(by_words)
    assert "Start the page with --data FOLDER." in page.get("/changes").text
    assert page.get("/mistakes?format=json").json() == {"n": 0, "confusions": [], "pictures": []}
    card = page.post("/look?format=json", files={"picture": ("a.png", sky)}).json()["card"]
    assert page.post(f"{card}/edit?format=json", data={"label": "moss", "texts": "red"}).json()["on_data"] is None
    assert "To see what your edit changes on labelled pictures" in page.get(card).text


def test_a_column_that_is_not_there_is_named(table: Path) -> None:
    with pytest.raises(DataError, match="must be a table with the column 'region'"):
        grouped_samples(table, "image", "label", "region")
    assert {s.text for s in grouped_samples(table, "image", "label", None).items} == {None}
