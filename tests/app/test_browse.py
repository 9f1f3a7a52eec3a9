"""The grid: what a view selects and in which order, what is sent of it, and the tiles that are kept."""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gone_through import looked
from PIL import Image
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.errors import DataError
from seewhy.language.annotation import store
from seewhy.language.annotation.labels import Corrections, LabelDecisions, LabelledData, open_decisions
from seewhy.language.annotation.store import AnnotationStore
from seewhy.pictures.samples import Sample, gathered, load_samples
from seewhy.service.app.rows import READ, Rows, View
from seewhy.service.app.settings import Settings
from seewhy.service.app.tiles import SIDE, Tiles, file_key, packed, square
from seewhy.service.app.worker import Worker
from seewhy.studies.inspection.check import KINDS, Check
from tiny import picture

Client = Callable[..., TestClient]


@pytest.fixture(scope="module")
def rows(fitted: Classifier, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """All pictures of three classes, looked at, and then some columns set by hand."""
    worker = Worker(fitted.encoder, Settings())
    made = Rows(fitted, load_samples(folders), worker, None, Tiles(tmp_path_factory.mktemp("tiles") / "t.sqlite"))
    made.start()
    for _ in range(500):
        if made.n_done == len(made.items):
            break
        time.sleep(0.02)
    worker.close()
    n = len(made.items)
    made.doubt = np.linspace(0.95, 0.05, n, dtype=np.float32)
    made.predicted[:2] = (made.label[:2] + 1) % 3
    made.findings[5] = 1 << list(KINDS).index("label")
    return made


def selected(rows: Rows, decided: dict[str, Any] | None = None, **view: Any) -> list[int]:
    return View(**view).select(rows, decided or {}).tolist()


def test_a_view_selects_by_every_column(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "score", np.linspace(0.05, 0.95, 24, dtype=np.float32))
    assert selected(rows) == list(range(24))
    assert selected(rows, label="rust") == [i for i, s in enumerate(rows.items) if s.label == "rust"]
    assert selected(rows, right="wrong") == [0, 1]
    assert selected(rows, right="right") == list(range(2, 24))
    assert selected(rows, predicted=rows.classes[rows.predicted[0]], right="wrong") == [0, 1]
    assert selected(rows, finding="label") == [5]
    assert selected(rows, finding="copy") == []
    assert selected(rows, name="RUST_3") == [i for i, s in enumerate(rows.items) if "rust_3" in s.image]
    assert selected(rows, least=0.9) == [i for i in range(24) if rows.score[i] >= 0.9]
    assert selected(rows, most=0.1) == [i for i in range(24) if rows.score[i] <= 0.1]
    assert 5 in selected(rows, least=float(rows.score[5]), most=float(rows.score[5])), "with both ends"
    key = rows.key[7].decode()
    assert selected(rows, {key: {"decision": "left_out"}}, decision="left_out") == [7]
    assert 7 not in selected(rows, {key: {"decision": "left_out"}}, decision="undecided")


def test_a_label_that_the_model_does_not_know_is_neither_right_nor_wrong(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "label", np.array([rows.label[0], len(rows.classifier.classes), *rows.label[2:]]))
    monkeypatch.setattr(rows, "is_known", rows.label < len(rows.classifier.classes))
    assert selected(rows, right="wrong") == [0]
    assert selected(rows, right="right") == list(range(2, 24))


def test_a_view_sorts_both_ways_and_keeps_ties_in_order(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "score", np.linspace(0.05, 0.95, 24, dtype=np.float32))
    assert selected(rows, sort="score") == list(range(24))
    assert selected(rows, sort="score", descending=True) == list(range(24))[::-1]
    assert selected(rows, sort="doubt") == list(range(24))[::-1]
    assert selected(rows, sort="label") == sorted(range(24), key=lambda i: (rows.label[i], i))
    assert selected(rows, descending=True) == list(range(24))[::-1]


def test_what_was_not_looked_at_comes_last_either_way(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = rows.score.copy()
    unknown[3] = np.nan
    monkeypatch.setattr(rows, "score", unknown)
    assert selected(rows, sort="score")[-1] == 3
    assert selected(rows, sort="score", descending=True)[-1] == 3


def test_words_put_what_matches_best_first(rows: Rows) -> None:
    match = np.zeros(24, np.float32)
    match[[9, 4]] = 0.9, 0.5
    assert View(words="x").select(rows, {}, match).tolist()[:2] == [9, 4]


@pytest.mark.parametrize(
    ("view", "says"),
    [
        ({"label": "mos"}, "No picture has the class 'mos'. Did you mean 'moss'?"),
        ({"finding": "odd"}, "The finding must be one of class, contradiction"),
        ({"verdict": "unsure"}, "The verdict must be one of sure"),
        ({"sort": "age"}, "The sort column must be one of order, label"),
    ],
)
def test_a_view_that_cannot_be_is_refused_with_the_cure(rows: Rows, view: dict[str, str], says: str) -> None:
    with pytest.raises(DataError) as caught:
        selected(rows, **view)
    assert str(caught.value).startswith(says)


def test_features_and_decisions_are_those_of_the_classifier(rows: Rows, fitted: Classifier) -> None:
    assert (rows.state == READ).all()
    said = fitted.predict([s.image for s in rows.items])
    assert [rows.classes[k] for k in rows.predicted[2:]] == [one.label for one in said[2:]]
    assert np.allclose(rows.score, [one.score for one in said], atol=1e-5)


def test_the_page_sends_a_part_of_the_view_and_all_its_places(client: Client, fitted: Classifier, wrong: Path) -> None:
    page = client(fitted, data=wrong)
    looked(page)
    data = page.get("/rows?right=wrong&start=2&count=3&places=true").json()
    assert (data["n"], data["of"], data["done"], len(data["rows"])) == (6, 10, 10, 3)
    assert [row["index"] for row in data["rows"]] == data["places"][2:5]
    assert {row["label"] for row in data["rows"]} == {"moss"}
    assert page.get("/rows?label=teal").status_code == 422
    assert page.get("/rows?count=5000").status_code == 422
    html = page.get("/browse").text
    assert 'id="grid"' in html
    assert '<option value="label">Label likely wrong</option>' in html
    assert '<a href="/browse" aria-current="page">' in html


def test_without_labelled_pictures_there_is_no_grid(client: Client, fitted: Classifier) -> None:
    assert client(fitted).get("/browse").status_code == 404


def test_tiles_come_many_in_one_answer(client: Client, fitted: Classifier, wrong: Path) -> None:
    page = client(fitted, data=wrong)
    looked(page)
    data = page.get("/tiles?places=0,3,9").content
    sizes = struct.unpack("<3I", data[:12])
    assert len(data) == 12 + sum(sizes)
    assert data[12:14] == b"\xff\xd8"
    assert data[12 + sizes[0] : 14 + sizes[0]] == b"\xff\xd8"
    for wrong_places in ("0,99", "-1", "x", ",".join("0" * 201)):
        assert page.get(f"/tiles?places={wrong_places}").status_code == 422


def test_a_tile_is_the_whole_picture_and_small() -> None:
    wide = square(np.zeros((100, 400, 3), np.uint8))
    import io

    assert Image.open(io.BytesIO(wide)).size == (SIDE, SIDE // 4)
    assert packed([b"ab", b"", b"c"]) == struct.pack("<3I", 2, 0, 1) + b"abc"


def test_tiles_are_kept_and_a_changed_file_has_another_key(tmp_path: Path) -> None:
    kept = Tiles(tmp_path / "tiles.sqlite")
    kept.put([(b"1" * 16, b"one"), (b"2" * 16, b"two")])
    again = Tiles(tmp_path / "tiles.sqlite")
    assert again.get([b"2" * 16, b"3" * 16, b"1" * 16]) == [b"two", b"", b"one"]
    assert again.known([b"1" * 16, b"3" * 16]) == {b"1" * 16}
    file = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(file)
    before = file_key(str(file))
    Image.new("RGB", (40, 40), "red").save(file)
    assert file_key(str(file)) != before
    assert file_key(str(tmp_path / "gone.png")) == b""


def test_tiles_that_cannot_be_kept_stay_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tiles.sqlite").write_bytes(b"somebody else's")
    tiles = Tiles(tmp_path / "tiles.sqlite")
    tiles.put([(b"1" * 16, b"one")])
    assert tiles.get([b"1" * 16]) == [b"one"]
    assert (tmp_path / "tiles.sqlite").read_bytes() == b"somebody else's"
    assert "They will be computed again next time" in caplog.text


def test_a_disk_that_fills_loses_no_tile_of_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = Tiles(tmp_path / "tiles.sqlite")

    class Full:
        lock = nullcontext()

        def __enter__(self) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(tiles, "_db", Full())
    tiles.put([(b"1" * 16, b"one")])
    assert tiles.get([b"1" * 16]) == [b"one"]


@pytest.fixture
def deciding(client: Client, fitted: Classifier, wrong: Path, tmp_path: Path) -> TestClient:
    samples = load_samples(wrong)
    decisions = open_decisions(tmp_path / "decided", samples.classes)
    page = client(fitted, data=wrong, corrections=Corrections(LabelledData(wrong, samples.items), decisions))
    looked(page)
    return page


def many(page: TestClient, decision: str, places: list[int], author: str = "Ann", **more: Any) -> dict[str, Any]:
    body = {"author": author, "decision": decision, "places": places, **more}
    answer = page.post("/decide-many", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_pictures_without_a_file_share_no_tile(fitted: Classifier, tmp_path: Path) -> None:
    drawn = gathered([Sample(f"{k} {i}", k, pixels=picture(k, i)) for k in ("moss", "sky") for i in range(2)])
    worker = Worker(fitted.encoder, Settings())
    made = Rows(fitted, drawn, worker, None, Tiles(tmp_path / "tiles.sqlite"))
    made._step()
    worker.close()
    assert [made.tile(i) for i in range(4)] == [b""] * 4


def test_a_disk_that_fails_in_between_is_no_error(tmp_path: Path) -> None:
    class Lock:
        """Another thread gives the disk up as soon as this one waits for it."""

        def __enter__(self) -> None:
            tiles._give_up(OSError("gone"))

        def __exit__(self, *_: object) -> None:
            pass

    for tiles in (Tiles(tmp_path / "tiles.sqlite") for _ in range(2)):
        known = tiles.get([b"a"])
        tiles._lock = Lock()  # type: ignore[assignment]
        if known == [b""]:
            tiles.put([(b"a", b"1")])
        else:
            assert tiles.get([b"a"]) == [b"1"]


def test_a_selection_is_decided_on_at_once_and_undone(deciding: TestClient) -> None:
    places = deciding.get("/rows?right=wrong&places=true").json()["places"]
    done = many(deciding, "changed", places, label="sky")
    assert done == {"saved": 6, "refused": [], "numbers": {str(i): 1 for i in places}}
    rows = deciding.get("/rows?decision=changed").json()["rows"]
    assert {(r["decided"], r["author"]) for r in rows} == {("sky", "Ann")}
    assert {r["index"] for r in rows} >= set(places), "and their copies, which share a decision"
    done = many(deciding, "undo", places, bases=done["numbers"])
    assert done == {"saved": 6, "refused": [], "numbers": {str(i): 2 for i in places}}, "copies too"
    assert deciding.get("/rows?decision=changed").json()["n"] == 0


def test_a_selection_is_undone_where_there_is_something_to_undo(deciding: TestClient) -> None:
    bases = many(deciding, "left_out", [1, 2])["numbers"]
    done = many(deciding, "undo", [0, 1, 2], bases=bases)
    assert (done["saved"], [one["error"] for one in done["refused"]]) == (
        2, ["This picture has no decision to undo. Decide on it first."],
    )  # fmt: skip


def test_indices_of_other_data_are_refused(
    deciding: TestClient, fitted: Classifier, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that was open while the server was started again with other data."""
    data = deciding.get("/changed").json()["data"]
    assert f'data-of="{data}"' in deciding.get("/next").text
    assert many(deciding, "postponed", [0], data=data)["saved"] == 1
    assert deciding.post("/selection.csv", json={"places": [0], "data": data}).status_code == 200
    monkeypatch.setattr(deciding.app.state.seewhy.rows, "digest", "other")  # type: ignore[attr-defined]
    body = {"author": "Ann", "decision": "left_out", "places": [1], "data": data}
    for path in ("/decide-many", "/selection.csv"):
        refused = deciding.post(f"{path}?format=json", json=body)
        assert refused.status_code == 422, path
        assert refused.json()["error"] == (
            "The server was started again and the data have changed, so what is selected here may be other pictures. "
            "Reload the page. All decisions are kept."
        )
    assert deciding.get("/rows?decision=left_out").json()["n"] == 0


def test_the_digest_of_the_data_is_of_files_and_labels(fitted: Classifier, wrong: Path) -> None:
    worker = Worker(fitted.encoder, Settings())
    samples = load_samples(wrong)
    digests = [Rows(fitted, samples, worker, None).digest for _ in range(2)]
    items = samples.items
    digests.append(Rows(fitted, replace(samples, items=items[::-1]), worker, None).digest)
    digests.append(
        Rows(fitted, replace(samples, items=(replace(items[0], label="sky"), *items[1:])), worker, None).digest
    )
    Path(items[0].image).write_bytes(Path(items[1].image).read_bytes() + b" ")
    digests.append(Rows(fitted, samples, worker, None).digest)
    worker.close()
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_what_somebody_decided_in_between_stands_and_is_told(deciding: TestClient) -> None:
    many(deciding, "left_out", [0], "Bo")
    done = many(deciding, "changed", [0, 1], label="rust")
    assert done["saved"] == 1, done
    (refused,) = done["refused"]
    assert refused["index"] == 0
    assert refused["error"].startswith("Bo decided in between: left out")
    assert deciding.get("/rows?decision=left_out").json()["n"] >= 1


def test_a_file_that_changed_is_not_decided_on_and_the_others_are(deciding: TestClient) -> None:
    first = deciding.get("/rows").json()["rows"][0]
    path = Path(deciding.get("/selection.csv?places=0").text.splitlines()[1].partition(",")[0])
    assert path.name == first["image"]
    Image.new("RGB", (8, 8)).save(path)
    done = many(deciding, "kept", [0, 1])
    assert done["saved"] == 1, done
    assert "has changed since the page was started" in done["refused"][0]["error"]


def test_a_selection_is_downloaded_as_a_table_that_can_be_read(deciding: TestClient, tmp_path: Path) -> None:
    answer = deciding.get("/selection.csv?places=4,2")
    table = tmp_path / "list.csv"
    table.write_bytes(answer.content)
    assert [s.label for s in load_samples(table).items] == [
        deciding.get("/rows").json()["rows"][i]["label"] for i in (4, 2)
    ]


def test_a_selection_of_any_size_is_downloaded_by_a_form(deciding: TestClient) -> None:
    answer = deciding.post("/selection.csv", json={"places": [4, 2] * 20_000})
    assert answer.text == deciding.get("/selection.csv?places=4,2").text, "each picture once"
    assert answer.headers["content-type"].startswith("text/csv")
    refused = deciding.post("/selection.csv?format=json", json={"places": [1, 99]})
    assert (refused.status_code, refused.json()["error"][:45]) == (422, "The index of a picture must be from 0 to 9, g")


def test_a_name_that_is_not_utf8_is_refused_and_the_others_are_decided_on(
    client: Client, fitted: Classifier, wrong: Path, tmp_path: Path
) -> None:
    file = next((wrong / "moss").iterdir())
    try:
        file.rename(os.fsdecode(os.fsencode(wrong / "moss") + b"/\xff.png"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    samples = load_samples(wrong)
    data = LabelledData(wrong, samples.items)
    page = client(fitted, data=wrong, corrections=Corrections(data, open_decisions(tmp_path / "d", samples.classes)))
    looked(page)
    done = many(page, "changed", list(range(10)), label="sky")
    assert done["saved"] == 9
    assert "has a name that is not UTF-8. Rename the file" in done["refused"][0]["error"]
    odd = done["refused"][0]["index"]
    for refused in (page.get("/corrected.csv"), page.post("/selection.csv", json={"places": [odd]})):
        assert refused.status_code == 422
        assert "has a name that is not UTF-8, which a table cannot hold" in refused.text
    assert page.get("/selection.csv?places=" + ("1" if odd == 0 else "0")).status_code == 200


def test_decisions_are_read_once_whoever_saved_them(deciding: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    many(deciding, "left_out", [0, 1])
    deciding.get("/rows")
    read, real = [], store._version
    monkeypatch.setattr(store, "_version", lambda row: read.append(row["author"]) or real(row))
    assert deciding.get("/rows?decision=left_out").json()["n"] >= 2
    assert read == []
    state = deciding.app.state.seewhy  # type: ignore[attr-defined]
    other = LabelDecisions(AnnotationStore(state.corrections.decisions.store.path), ("moss", "rust", "sky"))
    key = deciding.get("/rows?decision=left_out").json()["rows"][0]["key"]
    other.undo(key, "Bo", 1)
    read.clear()
    standing = deciding.get("/decisions").json()
    assert (standing[key]["decision"], standing[key]["author"]) == ("undecided", "Bo")
    assert read == ["Bo"]
    assert other.standing() == standing, "whoever reads all at once has the latest too"


@pytest.mark.parametrize("body", [{"places": [99]}, {"decision": "wrong"}, {"places": list(range(2001))}])
def test_a_decision_that_cannot_be_made_is_refused_whole(deciding: TestClient, body: dict[str, Any]) -> None:
    given = {"author": "Ann", "decision": "kept", "places": [0], **body}
    assert deciding.post("/decide-many", json=given).status_code == 422
    assert deciding.get("/rows?decision=kept").json()["n"] == 0


def waited(page: TestClient) -> dict[str, Any]:
    for _ in range(600):
        state = page.get("/refit/state").json()
        if not state["running"]:
            return dict(state)
        time.sleep(0.05)
    raise AssertionError("the comparison did not end")


def test_the_decisions_are_compared_in_the_background(deciding: TestClient) -> None:
    html = deciding.get("/refit").text
    assert "Fit and compare" in html
    assert '<a href="/refit" aria-current="page">' in html
    assert deciding.post("/refit/start").status_code == 200
    assert (
        waited(deciding)["problem"]
        == "No label was changed and no picture was left out. Change a label, or leave a picture out, and start again."
    )
    places = deciding.get("/rows?right=wrong&predicted=sky&places=true").json()["places"]
    many(deciding, "changed", places, label="sky")
    assert deciding.post("/refit/start").status_code == 200
    assert waited(deciding) == {"running": None, "done": True, "problem": None}
    data = deciding.get("/refit?format=json").json()
    assert data["study"] == "refit"
    assert data["n_changed"] >= 4
    assert data["sentence"].partition(":")[0] in deciding.get("/refit").text
    for row in data["changed"]:
        assert deciding.get("/rows").json()["rows"][row["index"]]["image"] == row["image"]
        both = deciding.get(f"{row['card']}?format=json").json()
        assert [both[side]["label"] for side in ("before", "after")] == [row["before"], row["after"]]
        assert deciding.get(row["thumbnail"]).status_code == 200


@pytest.fixture
def compared(client: Client, fitted: Classifier, folders: Path, tmp_path: Path) -> TestClient:
    """A third of the sky called moss, put right by somebody, and compared."""
    data = tmp_path / "data"
    for k, file in enumerate(sorted(folders.rglob("*.png"))):
        label = "moss" if file.parent.name == "sky" and k % 3 == 0 else file.parent.name
        (data / label).mkdir(parents=True, exist_ok=True)
        (data / label / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    (data / "moss" / "broken.png").write_bytes(b"nothing")
    samples = load_samples(data)
    decisions = open_decisions(tmp_path / "decided", samples.classes)
    page = client(fitted, data=data, corrections=Corrections(LabelledData(data, samples.items), decisions))
    looked(page)
    assert page.get("/refit/cards/0?format=json").status_code == 404, "before a comparison"
    many(page, "changed", page.get("/rows?label=moss&name=sky&places=true").json()["places"], label="sky")
    page.post("/refit/start")
    assert waited(page)["done"]
    return page


def test_both_cards_of_a_picture_are_by_classifiers_that_held_it_out(compared: TestClient) -> None:
    (moved, *_) = compared.get("/rows?label=moss&name=sky").json()["rows"]
    both = compared.get(f"/refit/cards/{moved['index']}?format=json").json()
    assert (both["label"], both["now"], both["image"]) == ("moss", "sky", moved["image"])
    mine = {row["index"]: row for row in compared.get("/rows").json()["rows"]}
    for side in ("before", "after"):
        learnt = both[side]["learnt"]
        assert 0 < len(learnt) <= 5
        assert moved["index"] not in {one["index"] for one in learnt}
        for one in learnt:
            row = mine[one["index"]]
            expected = row["decided"] if side == "after" and row["decision"] == "changed" else row["label"]
            assert one["label"] == expected
            assert one["changed"] == (expected != row["label"])
        assert both[side]["where"]["verdict"] in ("believable", "partly", "do not rely"), "measured"
        assert "measured on 24 held-out pictures" in both[side]["decision"]["sentence"]
    assert any(one["changed"] for one in both["after"]["learnt"])
    assert both["after"]["label"] == "sky"
    text = compared.get(f"/refit/cards/{moved['index']}").text
    assert text.count('<section aria-labelledby="') == 2
    assert text.count('class="heat"') == 2
    assert text.count("Most similar training pictures") == 2
    assert text.count("where the heat says it should") == 2, "a verdict on each heat"
    assert "Labelled moss, now sky." in text
    assert str(Path(compared.app.state.seewhy.rows.items[0].image).parent.parent) not in f"{both}{text}"  # type: ignore[attr-defined]


def test_cards_of_a_picture_that_changed_or_is_unknown_are_refused(compared: TestClient) -> None:
    rows = compared.app.state.seewhy.rows  # type: ignore[attr-defined]
    broken = [Path(s.image).name for s in rows.items].index("broken.png")
    for unknown in (999, broken):
        answer = compared.get(f"/refit/cards/{unknown}?format=json")
        assert answer.status_code == 404
        assert "The comparison has no picture with this number" in answer.json()["error"]
    Image.new("RGB", (8, 8)).save(rows.items[broken + 1].image)
    answer = compared.get(f"/refit/cards/{broken + 1}?format=json")
    assert answer.status_code == 422
    assert "has changed since the page was started" in answer.json()["error"]


def test_a_decision_that_is_sent_twice_or_on_a_copy_counts_as_saved(deciding: TestClient) -> None:
    assert many(deciding, "left_out", [0, 1])["saved"] == 2
    again = many(deciding, "left_out", [0, 1, 2])
    assert again == {"saved": 3, "refused": [], "numbers": {"0": 1, "1": 1, "2": 1}}, "after a lost answer"
    assert len(many(deciding, "kept", [0, 1], "Bo")["refused"]) == 2, "another decision is not"
    rows = deciding.get("/rows").json()["rows"]
    alike = [[row for row in rows if row["key"] == one["key"]] for one in rows if one["decision"] == "undecided"]
    twice = next(copies for copies in alike if len({row["label"] for row in copies}) == 2)
    kept = many(deciding, "kept", [row["index"] for row in twice])
    assert kept["saved"] == 1, "only one of two labels of a picture can be kept"
    assert kept["refused"][0]["error"] == f"Ann decided in between: kept {twice[0]['label']}."
    row = deciding.get("/rows").json()["rows"][0]
    assert many(deciding, "left_out", [0], bases={"0": row["number"]})["saved"] == 1
    assert len(deciding.get(f"/history/{row['key']}").json()) == 1, "and is kept once"
    assert many(deciding, "left_out", [0], "Bo", bases={"0": row["number"]})["saved"] == 1
    assert len(deciding.get(f"/history/{row['key']}").json()) == 2, "a second opinion is kept"


def test_the_findings_of_a_check_in_the_folder_of_decisions_are_shown(
    client: Client, fitted: Classifier, wrong: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, samples = tmp_path_factory.mktemp("check"), load_samples(wrong)
    checked = Check().run(fitted.encoder, samples)
    checked.save(folder / "check.json")
    given = Corrections(LabelledData(wrong, samples.items), open_decisions(folder, samples.classes))
    rows = client(fitted, data=wrong, corrections=given).get("/rows?finding=contradiction").json()["rows"]
    expected = {f["image"] for f in checked.data["findings"] if f["kind"] == "contradiction"}
    assert expected
    assert {row["image"] for row in rows} == {Path(name).name for name in expected}


def test_a_check_of_other_data_is_not_shown_and_the_log_says_so(
    client: Client, fitted: Classifier, wrong: Path, folders: Path, tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder, samples = tmp_path_factory.mktemp("check"), load_samples(wrong)
    Check().run(fitted.encoder, load_samples(folders)).save(folder / "check.json")
    given = Corrections(LabelledData(wrong, samples.items), open_decisions(folder, samples.classes))
    page = client(fitted, data=wrong, corrections=given)
    assert not any(row["findings"] for row in page.get("/rows").json()["rows"])
    assert "are not shown" in caplog.text
