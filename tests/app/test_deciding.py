"""Labels corrected beside the mistakes: by several people, on the disk at once, undone, exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gone_through import looked
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from seewhy.classifiers.base import Classifier
from seewhy.cli import app
from seewhy.errors import DataError, ForeignFileError, InputError, SeeWhyError
from seewhy.language.annotation.labels import FILE, Corrections, LabelledData, open_decisions
from seewhy.pictures.samples import load_samples
from seewhy.studies.inspection.check import Check
from tiny import tiny_cnn

Opened = Callable[[Path], TestClient]


@pytest.fixture
def table(wrong: Path) -> Path:
    """The pictures of the folders as a table, with a copy of one under its right label and columns of its own."""
    rows = [["image", "label", "id", "note"]]
    for i, picture in enumerate(sorted(wrong.rglob("*.png"))):
        rows.append([str(picture.relative_to(wrong)), picture.parent.name, f"{i}", "a, b"])
    with open(wrong / "data.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return wrong / "data.csv"


@pytest.fixture
def opened(client: Callable[..., TestClient], fitted: Classifier) -> Opened:
    """The page of some data, whose decisions lie in ``decided/`` beside them; all pictures are looked at."""

    def make(data: Path) -> TestClient:
        found = LabelledData(data, load_samples(data).items)
        page = client(fitted, data, Corrections(found, open_decisions(data.parent / "decided", fitted.classes)))
        looked(page)
        return page

    return make


def mistakes(page: TestClient) -> list[dict[str, Any]]:
    return list(page.get("/mistakes?order=surest&format=json").json()["pictures"])


def decide(page: TestClient, one: dict[str, Any], decision: str, author: str = "Ann", **more: Any) -> Any:
    body = {"author": author, "decision": decision, "given": one["true"], "base": 0, **more}
    return page.post(f"/decide/{one['key']}?format=json", json=body)


def export(data: Path, *more: str) -> list[dict[str, str]]:
    """By the command line."""
    out = data.parent / "corrected.csv"
    how = ["app", "--data", str(data), "--decisions", str(data.parent / "decided"), "--export", str(out), *more]
    done = CliRunner().invoke(app, how, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return list(csv.DictReader(out.read_text().splitlines()))


def test_beside_each_mistake_all_can_be_decided(opened: Opened, table: Path) -> None:
    page = opened(table)
    found = mistakes(page)
    for address in ("/mistakes", "/mistakes?order=surest"):
        text = page.get(address).text
        for one in found:
            assert f'aria-label="Label of {one["image"]}" data-key="{one["key"]}" data-given="{one["true"]}"' in text
        assert text.count('<button type="button" value="changed" data-label=') == len(found)
        for one in found:
            assert f'<button type="button" value="kept">Keep {one["true"]}</button>' in text
            assert f'data-label="{one["predicted"]}">Change to {one["predicted"]}</button>' in text
        assert text.count('<input class="label" list="labels" autocomplete="off">') == len(found), "nothing filled in"
        assert text.count(">Keep moss</button>") == len(found)
        assert '<option value="rust">' in text
        assert "<code>data.csv</code> itself is never changed" in text
        assert str(table.parent) not in text
    assert page.get("/deciding.js").status_code == 200
    corrected = decide(page, found[0], "changed", label=found[0]["predicted"]).json()
    assert (corrected["decision"], corrected["label"], corrected["given"]) == (
        "changed", found[0]["predicted"], "moss",
    )  # fmt: skip
    for one, decision in zip(found[1:4], ("kept", "postponed", "left_out"), strict=True):
        assert decide(page, one, decision).json()["label"] == "moss"
    standing = page.get("/decisions").json()
    assert [standing[one["key"]]["decision"] for one in found[:4]] == ["changed", "kept", "postponed", "left_out"]
    undone = page.post(f"/undo/{found[0]['key']}", json={"author": "Bo", "base": 1}).json()
    assert (undone["decision"], undone["author"], undone["undone"]) == ("undecided", "Bo", True)
    assert [v["decision"] for v in page.get(f"/history/{found[0]['key']}").json()] == ["changed", "undecided"]


@pytest.mark.parametrize("given", ["sky", "no class of the data", "", "MOSS", "moss\0", "\ud800"])
def test_a_label_that_the_picture_does_not_have_is_refused(opened: Opened, table: Path, given: str) -> None:
    page = opened(table)
    one = mistakes(page)[0]
    body = {"author": "Ann", "decision": "changed", "label": "sky", "given": given, "base": 0}
    answer = page.post(f"/decide/{one['key']}", content=json.dumps(body), headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]
    assert page.get("/decisions").json() == {}


@pytest.mark.parametrize("base", [-1, 7, 10**30, 1.5, None, True, "x"])
def test_a_version_that_does_not_exist_is_refused(opened: Opened, table: Path, base: Any) -> None:
    page = opened(table)
    one = mistakes(page)[0]
    body = {"author": "Ann", "decision": "changed", "label": "sky", "given": one["true"], "base": base}
    assert 400 <= page.post(f"/decide/{one['key']}", json=body).status_code < 500
    assert page.get("/decisions").json() == {}


def test_who_was_slower_is_told_and_changes_nothing(opened: Opened, table: Path) -> None:
    page = opened(table)
    one = mistakes(page)[0]
    decide(page, one, "changed", label="sky")
    slower = decide(page, one, "kept", "Bo")
    assert slower.status_code == 409
    assert slower.json()["error"] == (
        "Ann decided first: changed, sky. Your decision was not saved. Look at that decision and decide again."
    )
    assert slower.json()["state"] == page.get("/decisions").json()[one["key"]]
    assert page.post(f"/undo/{one['key']}", json={"author": "Bo", "base": 0}).status_code == 409
    assert len(page.get(f"/history/{one['key']}").json()) == 1
    assert decide(page, one, "kept", "Bo", base=1).json()["number"] == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"label": "rusty"}, "The label must be one of 3 classes, got 'rusty'. Did you mean 'rust'?"),
        ({"author": "  "}, "The annotator's name must have 1 to 80 characters, got 0."),
        ({"decision": "wrong"}, "The decision must be one of changed, kept, postponed, left_out, got 'wrong'."),
        ({"given": "teal"}, "and the label 'teal'. Reload the page."),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_told(opened: Opened, table: Path, changed: dict[str, str], says: str) -> None:
    page = opened(table)
    one = mistakes(page)[0]
    said = decide(page, one, **{"decision": "changed", "label": "sky", **changed})
    assert said.status_code == 422
    assert said.json()["error"].endswith(says)
    assert page.get("/decisions").json() == {}


def test_a_picture_or_a_table_that_changed_is_told_without_its_folder(opened: Opened, table: Path) -> None:
    page = opened(table)
    first, second = mistakes(page)[:2]
    decide(page, second, "changed", label="sky")
    Image.new("RGB", (9, 9)).save(table.parent / "moss" / first["image"])
    said = decide(page, first, "kept").json()["error"]
    assert said == (
        f"{first['image']} has changed since the page was started. "
        "Start the page again; decisions on other pictures are kept."
    )
    (table.parent / "moss" / first["image"]).write_bytes(b"none")
    assert decide(page, first, "kept").json()["error"].startswith(f"{first['image']} ")
    assert page.get("/corrected.csv").status_code == 200, "names and labels are as they were"
    for changed in (table.read_text().replace("a, b", "c").replace(",rust,", ",sky,"), ""):
        table.write_text(changed)
        refused = page.get("/corrected.csv?format=json")
        assert (refused.status_code, refused.json()["error"]) == (
            422,
            "Pictures or labels of data.csv have changed since this page was started. "
            "Start the page again; all decisions are kept.",
        )
    assert list(page.get("/decisions").json()) == [second["key"]]


def test_the_table_is_the_same_by_page_and_command_and_the_data_are_left(
    opened: Opened, table: Path, fitted: Classifier
) -> None:
    original, page = table.read_bytes(), opened(table)
    found = mistakes(page)
    decide(page, found[0], "changed", label=found[0]["predicted"])
    decide(page, found[1], "kept")
    decide(page, found[2], "left_out")
    decide(page, found[3], "postponed")
    answer = page.get("/corrected.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="corrected.csv"'
    rows = export(table)
    assert (table.parent / "corrected.csv").read_bytes() == answer.content
    assert list(rows[0]) == ["image", "label", "id", "note", "label_before", "decision", "decided_by", "decided_at"]
    by = {Path(row["image"]).name: row for row in rows if row["image"].startswith("moss")}
    assert {n: (r["label"], r["decision"]) for n, r in by.items() if r["decision"]} == {
        found[0]["image"]: (found[0]["predicted"], "changed"),
        found[1]["image"]: ("moss", "kept"),
        found[3]["image"]: ("moss", "postponed"),
    }
    assert found[2]["image"] not in by
    assert {r["note"] for r in rows} == {"a, b"}
    # seewhy check on the same folder writes the same; it counts copies under another label, too
    Check().run(tiny_cnn(), load_samples(table)).save(table.parent / "decided" / "check.json")
    how = ["check", str(table), "--from", str(table.parent / "decided"), "--export"]
    done = CliRunner().invoke(app, [*how, str(table.parent / "again.csv")], catch_exceptions=False)
    assert "8 pictures (2 changed, 1 kept, 2 postponed, 2 left out, 0 outdated)" in done.stdout
    assert (table.parent / "again.csv").read_bytes() == answer.content
    done = CliRunner().invoke(app, [*how, str(table.parent / "again.csv"), "--json"], catch_exceptions=False)
    counts = {"changed": 2, "kept": 1, "postponed": 2, "left_out": 2, "outdated": 0, "n": 8}
    assert json.loads(done.stdout) == {"file": str(table.parent / "again.csv"), **counts}
    assert table.read_bytes() == original
    for force in ((), ("--force",)):
        done = CliRunner().invoke(app, [*how, str(table), *force])
        assert isinstance(done.exception, ForeignFileError)
        assert "is also an input, and would be overwritten. Choose another name; --force does not help." in str(
            done.exception
        )
    assert table.read_bytes() == original


def test_class_folders_are_written_as_a_table(opened: Opened, folders: Path, wrong: Path) -> None:
    """They lie in a folder of their own."""
    data = wrong / "pictures"
    data.mkdir()
    for label in ("moss", "sky", "rust"):
        (wrong / label).rename(data / label)
    page = opened(data)
    one = mistakes(page)[0]
    decide(page, one, "changed", label="sky")
    rows = export(data)
    assert (wrong / "corrected.csv").read_bytes() == page.get("/corrected.csv").content
    changed = [row for row in rows if row["decision"]]
    assert [(r["image"], r["label"], r["label_before"], r["decided_by"]) for r in changed if "moss" in r["image"]] == [
        (f"pictures/moss/{one['image']}", "sky", "moss", "Ann")
    ]
    again = load_samples(wrong / "corrected.csv")
    assert len(again) == len(load_samples(data))


def test_decisions_on_labels_that_the_data_no_longer_have_are_told_and_not_applied(opened: Opened, table: Path) -> None:
    page = opened(table)
    found = [one for one in mistakes(page) if one["predicted"] == "rust"]
    decide(page, found[0], "kept")
    decide(page, found[1], "changed", label="rust")
    for one in found:  # somebody mends them in the table itself, the one as it was decided, the other not
        table.write_text(table.read_text().replace(f"moss/{one['image']},moss", f"moss/{one['image']},rust"))
    rows = {row["image"]: row for row in export(table)}
    row = rows[f"moss/{found[0]['image']}"]
    assert (row["label"], row["decision"], row["decided_by"]) == ("rust", "outdated", "Ann")
    assert rows[f"moss/{found[1]['image']}"]["decision"] == "changed"
    out = str(table.parent / "corrected.csv")
    done = CliRunner().invoke(
        app, ["app", "--data", str(table), "--decisions", str(table.parent / "decided"), "--export", out]
    )
    assert done.stderr == (
        f"seewhy: {table} now has other labels in 2 of 10 rows. People decided on these rows when they had their old "
        f"labels, so the decisions are marked outdated and not applied. Decide on these rows again.\n"
    )
    assert "seewhy" not in done.stdout


def test_a_row_without_a_picture_stays_as_it_is(opened: Opened, table: Path) -> None:
    with open(table, "a") as file:
        file.write(",moss,99,none\n")
    page = opened(table)
    decide(page, mistakes(page)[0], "left_out")
    assert [row for row in export(table) if row["id"] == "99"] == [
        {"image": "", "label": "moss", "id": "99", "note": "none", "label_before": "", "decision": "", "decided_by": "",
         "decided_at": ""}
    ]  # fmt: skip


def test_two_processes_share_a_folder(opened: Opened, table: Path, fitted: Classifier) -> None:
    page = opened(table)
    one = mistakes(page)[0]
    other = open_decisions(table.parent / "decided", fitted.classes, new=False)
    decide(page, one, "postponed")
    assert other.standing()[one["key"]]["decision"] == "postponed"
    other.undo(one["key"], "Bo", 1)
    other.store.close()
    assert page.get("/decisions").json()[one["key"]]["decision"] == "undecided"
    assert decide(page, one, "postponed").status_code == 409


def test_without_a_folder_nothing_can_be_decided_and_nothing_is_written(
    client: Callable[..., TestClient], fitted: Classifier, table: Path
) -> None:
    before = sorted(table.parent.rglob("*"))
    page = client(fitted, table)
    looked(page)
    text = page.get("/mistakes").text
    assert "To change, keep or postpone labels here, start the page with <code>--decisions FOLDER</code>." in text
    assert "deciding.js" not in text
    assert "data-key" not in text
    one = mistakes(page)[0]
    assert decide(page, one, "postponed").status_code == 404
    for address in ("/decisions", f"/history/{one['key']}", "/corrected.csv"):
        assert page.get(address).status_code == 404
    assert sorted(table.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example"}, 421),
        ({"content-length": "99999999999"}, 413),
        ({"origin": "http://localhost:8000"}, 200),
    ],
)
def test_the_guard_stands_before_every_address(
    opened: Opened, table: Path, headers: dict[str, str], status: int
) -> None:
    page = opened(table)
    one = mistakes(page)[0]
    body = {"author": "Ann", "decision": "postponed", "given": "moss", "base": 0}
    assert page.post(f"/decide/{one['key']}", json=body, headers=headers).status_code == status
    undone = page.post(f"/undo/{one['key']}", json={"author": "Ann", "base": 1}, headers=headers)
    assert undone.status_code == status
    versions = page.get(f"/history/{one['key']}").json()
    assert len(versions) == (2 if status == 200 else 0)
    reads = {k: v for k, v in headers.items() if k != "origin"}
    expected = 200 if not reads else status
    for address in ("/decisions", f"/history/{one['key']}", "/corrected.csv", "/deciding.js"):
        answer = page.get(address, headers=reads)
        assert answer.status_code == expected, address
        assert answer.headers["x-content-type-options"] == "nosniff"


def refused(*arguments: str) -> SeeWhyError:
    error = CliRunner().invoke(app, ["app", *arguments]).exception
    assert isinstance(error, SeeWhyError)
    return error


def test_options_that_do_not_go_together(table: Path) -> None:
    folder, out = table.parent / "decided", str(table.parent / "out.csv")
    error: SeeWhyError
    for some in ((), ("--data", str(table)), ("--decisions", str(folder))):
        error = refused("--export", out, *some)
        assert isinstance(error, InputError)
        assert str(error).startswith(
            f"--export {out} requires --data and --decisions. Add --data FOLDER --decisions FOLDER."
        )
    both = ("--data", str(table), "--decisions", str(folder))
    error = refused("--export", out, *both)
    assert isinstance(error, DataError)
    assert str(error) == (f"{folder} has no decisions.sqlite. Give the folder of --decisions or of a check.")
    assert not folder.exists()
    assert str(refused("--export", "out.tsv", *both)).startswith(
        "The name of a corrected table must end in .csv, got out.tsv"
    )
    assert isinstance(refused("--export", str(table), "--force", *both), ForeignFileError)
    folder.mkdir()
    (folder / FILE).write_bytes(b"somebody else's")
    assert isinstance(refused("--export", out, *both), ForeignFileError)
    assert (folder / FILE).read_bytes() == b"somebody else's"
    assert not Path(out).exists()
