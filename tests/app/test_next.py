"""What next: the classes and pictures that the page lists, the labels it takes, and what it says of more pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gone_through import looked
from starlette.testclient import TestClient
from typer.testing import CliRunner

from seewhy.classifiers.base import Classifier
from seewhy.cli import app as cli
from seewhy.errors import InputError
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.pictures.samples import Sample, Samples, gathered, load_samples
from seewhy.progress import Progress
from seewhy.service.app import Settings, make_app
from seewhy.service.app.job import Job, LastStep
from seewhy.service.app.next import Next, to_label
from seewhy.service.app.rows import Rows, with_unlabelled

Client = Callable[..., TestClient]


@pytest.fixture
def unlabelled(folders: Path) -> Samples:
    """All pictures of rust; the data have two of them."""
    return Samples(tuple(Sample(str(file), "ignored") for file in sorted((folders / "rust").iterdir())), ())


@pytest.fixture
def page(fitted: Classifier, folders: Path, unlabelled: Samples, tmp_path: Path) -> Iterator[TestClient]:
    """Eight pictures each of moss and sky, two of rust, six without a label."""
    table = tmp_path / "data.csv"
    kept = [s for s in load_samples(folders).items if s.label != "rust" or s.image[-5] in "01"]
    table.write_text("image,label\n" + "".join(f"{s.image},{s.label}\n" for s in kept))
    samples = load_samples(table)
    data = LabelledData(table, samples.items, unlabelled=unlabelled.items)
    corrections = Corrections(data, open_decisions(tmp_path / "decided", samples.classes))
    app = make_app(fitted, Settings(), data=samples, corrections=corrections, unlabelled=unlabelled)
    with TestClient(app, base_url="http://localhost:8000") as client:
        looked(client)
        for _ in range(400):
            if not client.get("/next?format=json").json()["label"]["waiting"]:
                break
            time.sleep(0.02)
        yield client


def waited(page: TestClient, at: str = "/next") -> dict[str, Any]:
    for _ in range(1200):
        state = page.get(f"{at}/state").json()
        if not state["running"]:
            return dict(state)
        time.sleep(0.05)
    raise AssertionError("the work did not end")


def decide(page: TestClient, places: list[int], label: str = "rust", decision: str = "changed") -> dict[str, Any]:
    body = {"author": "Ann", "decision": decision, "label": label, "places": places}
    return dict(page.post("/decide-many", json=body).json())


def test_the_closest_pictures_are_to_be_labelled_first_each_with_its_reason(page: TestClient) -> None:
    found = page.get("/next?format=json").json()
    assert (found["more"], found["classes"], found["running"]) == (None, None, None)
    label = found["label"]
    assert (label["n"], label["left"], label["waiting"]) == (6, 6, 0)
    gaps = [one["score"] - one["second_score"] for one in label["pictures"]]
    assert len(gaps) == 6
    assert gaps == sorted(gaps)
    assert gaps[0] < gaps[-1]
    first = label["pictures"][0]
    closest = (
        f"{first['first']} ({100 * first['score']:.0f} %) and {first['second']} ({100 * first['second_score']:.0f} %)"
    )
    assert first["reason"] == f"The two most probable classes are {closest}."
    card = page.get(f"/sample/{first['index']}?format=json").json()
    assert [one["label"] for one in card["top"][:2]] == [first["first"], first["second"]]
    text = page.get("/next").text
    assert first["reason"] in text
    assert "Work it out" in text
    assert '<a href="/next" aria-current="page">What next?</a>' in text
    assert "raised accuracy by 1.4 points (0.6 to 2.1)" in text


def test_a_label_is_saved_leaves_the_list_and_is_in_the_table(page: TestClient, tmp_path: Path) -> None:
    one, two, three, four = (p["index"] for p in page.get("/next?format=json").json()["label"]["pictures"][:4])
    assert decide(page, [one, two]) == {"saved": 2, "refused": [], "numbers": {str(one): 1, str(two): 1}}
    assert decide(page, [three], decision="left_out")["saved"] == 1
    assert decide(page, [four], decision="postponed")["saved"] == 1
    label = page.get("/next?format=json").json()["label"]
    assert (label["n"], label["left"]) == (6, 2)
    assert not {one, two, three, four} & {p["index"] for p in label["pictures"]}
    rows = list(csv.DictReader(io.StringIO(page.get("/corrected.csv").text)))
    added = [row for row in rows if not row["label_before"] and row["decision"] == "changed"]
    assert len(added) == 2
    assert {row["label"] for row in added} == {"rust"}
    assert all((tmp_path / row["image"]).is_file() for row in added)
    assert len(rows) == 18 + 2, "one that was left out or postponed gets no row"
    page.post("/refit/start")
    assert waited(page, "/refit")["problem"] is None
    compared = page.get("/refit?format=json").json()
    assert (compared["n"], compared["n_changed"]) == (20, 2), "they count in the comparison"


def test_the_command_exports_new_labels_of_a_folder_or_of_the_downloaded_list(
    page: TestClient, folders: Path, tmp_path: Path
) -> None:
    pictures = page.get("/next?format=json").json()["label"]["pictures"]
    listed = tmp_path / "list.csv"
    listed.write_bytes(page.get(f"/selection.csv?places={','.join(str(p['index']) for p in pictures)}").content)
    assert listed.read_text().count(",\n") == 6, "without labels"
    decide(page, [pictures[0]["index"]])
    mixed = tmp_path / "mixed"
    (mixed / "below").mkdir(parents=True)
    for file in (folders / "rust").iterdir():
        (mixed / file.name).write_bytes(file.read_bytes())
    (mixed / "below" / "sky.png").write_bytes((folders / "sky" / "sky_0.png").read_bytes())
    for number, bare in enumerate((folders / "rust", listed, mixed)):
        out = tmp_path / f"corrected{number}.csv"
        how = ["app", "--data", str(tmp_path / "data.csv"), "--unlabelled", str(bare)]
        how += ["--decisions", str(tmp_path / "decided"), "--export", str(out)]
        done = CliRunner().invoke(cli, how, catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        rows = list(csv.DictReader(out.read_text().splitlines()))
        assert [Path(row["image"]).name for row in rows if row["decision"]] == [pictures[0]["image"]]
        assert len(rows) == 19
    out = tmp_path / "without.csv"
    how = ["app", "--data", str(tmp_path / "data.csv"), "--decisions", str(tmp_path / "decided"), "--export", str(out)]
    done = CliRunner().invoke(cli, how, catch_exceptions=False)
    assert "lacks the labels of 1 unlabelled picture(s)." in done.stderr
    assert len(out.read_text().splitlines()) == 1 + 18


def test_a_picture_whose_label_was_undone_can_be_labelled_again(page: TestClient) -> None:
    place = page.get("/next?format=json").json()["label"]["pictures"][0]["index"]
    decide(page, [place])
    body = {"author": "Ann", "decision": "undo", "places": [place], "bases": {place: 1}}
    assert page.post("/decide-many", json=body).json()["saved"] == 1
    (row,) = [p for p in page.get("/next?format=json").json()["label"]["pictures"] if p["index"] == place]
    assert f'data-index="{place}" data-number="2"' in page.get("/next").text
    again = {**body, "decision": "changed", "label": "moss", "bases": {place: row["number"]}}
    assert page.post("/decide-many", json=again).json() == {"saved": 1, "refused": [], "numbers": {str(place): 3}}


def test_keeping_the_label_of_a_picture_without_one_does_not_undo_a_persons_label(page: TestClient) -> None:
    place = page.get("/next?format=json").json()["label"]["pictures"][0]["index"]
    decide(page, [place])
    body = {"author": "Ann", "decision": "kept", "places": [0, place], "bases": {place: 1}}
    answer = page.post("/decide-many", json=body).json()
    assert (answer["saved"], [one["index"] for one in answer["refused"]]) == (1, [place])
    assert "has no label to keep" in answer["refused"][0]["error"]
    assert {row["decided"] for row in page.get("/rows?decision=changed").json()["rows"]} == {"rust"}


def test_a_copy_of_a_labelled_picture_is_not_to_be_labelled_and_gets_no_row(
    fitted: Classifier, folders: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy.png").write_bytes((folders / "moss" / "moss_0.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    data = load_samples(folders)
    bare = replace(data, items=tuple(Sample(str(tmp_path / f"{name}.png")) for name in ("copy", "broken")))
    about = LabelledData(folders, data.items, unlabelled=bare.items)
    corrections = Corrections(about, open_decisions(tmp_path / "decided", data.classes))
    app = make_app(fitted, Settings(), data=data, corrections=corrections, unlabelled=bare)
    with TestClient(app, base_url="http://localhost:8000") as page:
        assert looked(page)
        while (label := page.get("/next?format=json").json()["label"])["waiting"]:
            time.sleep(0.02)
        assert (label["n"], label["left"], label["unreadable"], label["pictures"]) == (2, 0, 1, [])
        assert "1 cannot be read." in page.get("/next").text
        assert decide(page, [24], label="sky")["saved"] == 1
        rows = list(csv.DictReader(io.StringIO(page.get("/corrected.csv").text)))
        assert len(rows) == 24
        assert all(row["label"] for row in rows)


def test_one_file_whose_name_is_not_utf8_does_not_break_the_pages(
    fitted: Classifier, folders: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.png")
    Path(odd).write_bytes((folders / "rust" / "rust_0.png").read_bytes())
    data = load_samples(folders)
    items = tuple(replace(s, image=odd, label="moss") if s.image.endswith("rust_0.png") else s for s in data.items)
    app = make_app(fitted, Settings(), data=replace(data, items=items), unlabelled=gathered([Sample(odd)]))
    with TestClient(app, base_url="http://localhost:8000") as page:
        looked(page)
        at = [s.image for s in items].index(odd)
        key = page.get(f"/rows?start={at}&count=1").json()["rows"][0]["key"]
        listed = ("/rows", "/next", "/next?format=json", "/mistakes", "/mistakes?format=json", f"/rows?like={key}")
        for address in (*listed, f"/sample/{at}?format=json", f"/sample/{at}", f"/heat/{at}"):
            assert page.get(address).status_code == 200, address
        assert page.get("/rows").json()["rows"][at]["image"] == "\\udcff.png"


def test_pictures_that_cannot_be_read_are_said_to_be_the_cause(client: Client, fitted: Classifier, wrong: Path) -> None:
    for file in wrong.glob("*/*.png"):
        file.write_bytes(b"no picture")
    page = client(fitted, data=wrong)
    looked(page)
    answer = page.post("/next/start")
    assert answer.status_code == 422
    assert answer.json()["error"] == "None of the pictures can be read. Give other pictures."


def test_unlabelled_pictures_need_labelled_ones_beside_them(folders: Path) -> None:
    error = CliRunner().invoke(cli, ["app", "--unlabelled", str(folders)]).exception
    assert str(error) == f"--unlabelled {folders} requires labelled pictures. Add --data FOLDER."


def test_the_labels_of_new_pictures_are_learnt_from_when_it_is_fitted_again(page: TestClient) -> None:
    places = [p["index"] for p in page.get("/next?format=json").json()["label"]["pictures"]]
    decide(page, places)
    assert page.post("/refit/start").status_code == 200
    assert waited(page, "/refit")["problem"] is None
    found = page.get("/refit?format=json").json()
    assert (found["n"], found["n_changed"]) == (24, 6)


def test_classes_are_listed_with_reasons_and_more_pictures_are_answered(
    client: Client, fitted: Classifier, wrong: Path
) -> None:
    page = client(fitted, data=wrong)
    looked(page)
    state = page.post("/next/start").json()
    assert set(state) == {"running", "done", "problem"}
    assert waited(page) == {"running": None, "done": True, "problem": None}
    found = page.get("/next?format=json").json()
    assert (found["n"], found["n_classes"]) == (10, 3)
    assert found["more"]["missing"].startswith("There are too few pictures to predict the gain from more pictures: 10")
    assert found["classes"]
    for row in found["classes"]:
        for picture in row["wrong"]:
            at = page.get("/rows").json()["rows"][picture["index"]]
            assert (at["image"], at["label"]) == (picture["image"], row["label"])
    text = page.get("/next").text
    assert "too few pictures to predict" in text
    assert "New pictures of these classes alone do not help." in text
    assert "Work it out again" in text
    first = found["classes"][0]
    assert f'<a href="/browse?label={first["label"]}"' in text
    assert first["reasons"][0] in text
    assert "<code>--unlabelled FOLDER</code>" in text


def test_the_labels_as_people_decided_are_what_is_tested(page: TestClient) -> None:
    places = [p["index"] for p in page.get("/next?format=json").json()["label"]["pictures"]]
    decide(page, places[:4], label="sky")
    decide(page, [page.get("/rows?label=sky").json()["rows"][0]["index"]], decision="left_out")
    page.post("/next/start")
    assert waited(page)["problem"] is None
    found = page.get("/next?format=json").json()
    assert found["n"] == 18 + 4 - 1
    assert found["more"]["sentence"].startswith(("More pictures would help. Each", "More pictures may not help. Each"))
    text = page.get("/next").text
    assert found["more"]["sentence"] in text
    assert "2 times as many" in text


def test_the_study_gets_decided_labels_and_its_places_are_those_of_the_grid(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []

    def run(_encoder: Any, pooled: Any, labels: list[str], keys: list[str], *_: Any) -> Any:
        given.append(labels)
        assert len(pooled) == len(labels) == len(set(keys))
        more = {"missing": "not now"}
        return {"more": more, "accuracy": None, "classes": [{"label": "moss", "reasons": [], "wrong": [0, 2]}]}

    monkeypatch.setattr("seewhy.service.app.next.what_next", run)
    first, second = page.get("/rows").json()["rows"][:2]
    decide(page, [first["index"]], decision="left_out")
    decide(page, [second["index"]], label="rust")
    place = page.get("/next?format=json").json()["label"]["pictures"][-1]["index"]
    decide(page, [place], label="moss")
    page.post("/next/start")
    assert waited(page)["problem"] is None
    assert sorted(given[0]) == ["moss"] * (8 - 2 + 1) + ["rust"] * 3 + ["sky"] * 8
    (row,) = page.get("/next?format=json").json()["classes"]
    assert [one["index"] for one in row["wrong"]] == [1, 3], "without the one that was left out"
    shown = page.get("/rows").json()["rows"]
    assert [one["image"] for one in row["wrong"]] == [shown[i]["image"] for i in (1, 3)]


def test_no_picture_is_looked_at_again(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = page.app.state.seewhy.rows  # type: ignore[attr-defined]
    monkeypatch.setattr(type(rows.classifier.encoder), "encode", None)
    monkeypatch.setattr(type(rows.classifier.encoder), "pooled", None)
    page.post("/next/start")
    assert waited(page)["problem"] is None


def test_without_decisions_a_list_is_all_that_is_offered(
    fitted: Classifier, folders: Path, unlabelled: Samples
) -> None:
    data = load_samples(folders)
    unlike = replace(unlabelled, items=(*unlabelled.items, Sample(str(folders / "missing.png"))))
    app = make_app(fitted, Settings(), data=data, unlabelled=unlike)
    with TestClient(app, base_url="http://localhost:8000") as page:
        found = looked(page)
        assert (found["unknown_class"], found["n"]) == (0, 24), "a picture without a label is of no unknown class"
        assert page.get("/next?format=json").json()["label"]["n"] == 1, "the others have labels in the data"
        assert "start the page with <code>--decisions" not in page.get("/next").text, "as none can be read"


def test_a_file_that_has_a_label_keeps_it(folders: Path, unlabelled: Samples) -> None:
    data = load_samples(folders)
    both = with_unlabelled(data, replace(unlabelled, items=(*unlabelled.items, Sample("other.png", "moss"))))
    assert both.items[:-1] == data.items
    assert both.items[-1] == Sample("other.png")
    assert both.classes == data.classes


@pytest.fixture
def many(fitted: Classifier, folders: Path) -> Rows:
    """Thirty unlabelled pictures, the first two the same one, beside one that has a label."""
    items = [Sample("a.png", "rust"), *(Sample(f"{i}.png") for i in range(30))]
    rows = Rows(fitted, Samples(tuple(items), fitted.classes), None, None)  # type: ignore[arg-type]
    rows.state[:], rows.predicted[:], rows.second[:], rows.n_done = 1, 0, 1, len(items)
    rows.score[:], rows.second_score[:] = np.linspace(0.5, 0.9, 31), np.linspace(0.5, 0.1, 31)
    rows.key[:] = [f"{i:016x}".encode() for i in (0, 2, *range(2, 31))]
    return rows


def test_twenty_are_listed_copies_once_and_decided_ones_not_again(many: Rows) -> None:
    found = to_label(many, {})
    assert (found["n"], found["left"], len(found["pictures"])) == (30, 30, 20)
    assert [p["index"] for p in found["pictures"][:3]] == [1, 3, 4], "the second is a copy of the first"
    many.score[9], many.second_score[9] = 0.6, 0.599
    assert to_label(many, {})["pictures"][0]["index"] == 9, "by the gap, not by the score"
    key = many.key[3].decode()
    for decision, listed in (("undecided", True), ("changed", False), ("postponed", False)):
        pictures = to_label(many, {key: {"decision": decision}})["pictures"]
        assert (3 in [p["index"] for p in pictures]) == listed
    many.state[4] = 0
    assert 4 not in [p["index"] for p in to_label(many, {})["pictures"]]


def test_work_is_done_once_at_a_time_and_says_what_went_wrong(caplog: pytest.LogCaptureFixture) -> None:
    go, calls = threading.Event(), []

    def work(progress: Progress) -> int:
        calls.append(1)
        for _ in progress.track(range(4), "Counting", 4):
            go.wait(10)
        if len(calls) == 2:
            raise InputError("No. Expected yes. Try again.")
        if len(calls) == 3:
            raise ValueError("odd")
        return 7

    def ended() -> dict[str, Any]:
        go.set()
        for _ in range(200):
            if not job.state()["running"]:
                return job.state()
            time.sleep(0.02)
        raise AssertionError("it did not end")

    job = Job(work, lambda: None)
    job.start()
    time.sleep(0.05)
    assert job.start()["running"] == {"what": "Counting", "done": 0, "of": 4}
    assert ended() == {"running": None, "done": True, "problem": None}
    assert (len(calls), job.result) == (1, 7)
    job.start()
    assert ended()["problem"] == "No. Expected yes. Try again."
    job.start()
    assert "The server's log says why" in ended()["problem"]
    assert "odd" in caplog.text
    job.start()
    assert ended()["problem"] is None


def test_work_without_a_count_is_shown_too() -> None:
    progress = LastStep()
    with progress.doing("Grouping pictures that look alike"):
        assert progress.step == {"what": "Grouping pictures that look alike", "done": 0, "of": 1}


def test_a_job_that_ends_while_the_page_is_made_is_not_lost(many: Rows) -> None:
    class Ending:
        result: dict[str, Any] | None = None

        def state(self) -> dict[str, Any]:
            self.result = {"more": {"missing": "few"}, "classes": []}
            return {"running": None, "done": True, "problem": None}

    state: Any = SimpleNamespace(rows=many, corrections=None, decided=dict, bar=dict)
    page = Next(state)
    page.job = Ending()  # type: ignore[assignment]
    assert json.loads(bytes(page.page("json").body))["more"] == {"missing": "few"}


def test_nothing_begins_before_all_pictures_are_looked_at(many: Rows) -> None:
    many.n_done = 20
    job = Job(lambda _: 1, many.whole)
    with pytest.raises(InputError, match="11 pictures are not predicted yet"):
        job.start()
    assert job.state() == {"running": None, "done": False, "problem": None}


@pytest.mark.parametrize(("given", "status"), [("no class of the data", 422), ("moss", 422), ("", 200)])
def test_an_unlabelled_picture_has_no_label_that_a_client_could_have_seen(
    page: TestClient, given: str, status: int
) -> None:
    looked(page)
    bare = next(row for row in page.get("/rows").json()["rows"] if not row["label"])
    body = {"author": "Ann", "decision": "changed", "label": "sky", "given": given, "base": 0}
    assert page.post(f"/decide/{bare['key']}", json=body).status_code == status
