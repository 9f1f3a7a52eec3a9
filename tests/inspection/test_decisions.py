"""What people decide on labels: on the disk at once, undone step by step, nobody's overwritten, exported as a table."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from starlette.testclient import TestClient

from browser import BROWSER, Browser, until
from seewhy.cli import app
from seewhy.errors import DataError, InputError
from seewhy.language.annotation.labels import Corrections, LabelDecisions, LabelledData, known_picture
from seewhy.language.annotation.records import Version
from seewhy.language.annotation.store import AnnotationStore, Conflict
from seewhy.pictures.samples import load_samples
from seewhy.service.app.deciding import make_check_app
from seewhy.studies.inspection.check import Check, read_check, small_picture
from tiny import COLOURS, tiny_cnn

ORIGINAL = "id,file,kind,note\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve pictures, one of them labelled wrongly, one of them twice."""
    (tmp_path / "pictures").mkdir()
    draw, rows = np.random.default_rng(0), [ORIGINAL]
    for i in range(12):
        label = ("moss", "sky")[i % 2]
        blocks = np.kron(draw.integers(0, 120, (8, 8, 1)), np.ones((8, 8, 3)))
        pixels = (0.5 * blocks + 0.5 * np.array(COLOURS[label])).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
        rows.append(f'{i},pictures/{i}.png,{"moss" if i == 3 else label},"a, b"\n')
    rows.append("12,pictures/3.png,sky,'=1\n")
    (tmp_path / "data.csv").write_text("".join(rows))
    (tmp_path / "check").mkdir()
    samples = load_samples(tmp_path / "data.csv", image="file", label="kind")
    Check().run(tiny_cnn(), samples).save(tmp_path / "check" / "check.json")
    return tmp_path / "data.csv"


@pytest.fixture
def decisions(table: Path) -> Iterator[LabelDecisions]:
    store = AnnotationStore(table.parent / "check" / "decisions.sqlite")
    yield LabelDecisions(store, ("moss", "sky"))
    store.close()


def exported(table: Path, *more: str) -> list[dict[str, str]]:
    out = table.parent / "corrected.csv"
    how = ["--column", "image=file", "--column", "label=kind", "--from", str(table.parent / "check"), *more]
    done = CliRunner().invoke(app, ["check", str(table), *how, "--export", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return list(csv.DictReader(out.read_text().splitlines()))


def test_undo_goes_back_step_by_step_and_forgets_nothing(table: Path, decisions: LabelDecisions) -> None:
    picture = known_picture(str(table.parent / "pictures" / "3.png"))
    first = decisions.decide(picture, "Ann", "kept", "", "moss", 0)
    second = decisions.decide(picture, "Bo", "changed", "sky", "moss", 1)
    assert isinstance(first, Version)
    assert isinstance(second, Version)
    now = decisions.standing()[picture.key]
    assert (now["decision"], now["label"], now["author"], now["undone"]) == ("changed", "sky", "Bo", False)
    decisions.undo(picture.key, "Bo", 2)
    now = decisions.standing()[picture.key]
    assert (now["decision"], now["label"], now["undone"], now["number"]) == ("kept", "moss", True, 3)
    decisions.decide(picture, "Ann", "postponed", "", "moss", 3)
    decisions.undo(picture.key, "Ann", 4)
    assert decisions.standing()[picture.key]["decision"] == "kept"
    decisions.undo(picture.key, "Ann", 5)
    assert decisions.standing()[picture.key]["decision"] == "undecided"
    with pytest.raises(DataError, match=r"^This picture has no decision to undo\. Decide on it first\.$"):
        decisions.undo(picture.key, "Ann", 6)
    said = [(v["author"], v["decision"]) for v in decisions.history(picture.key)]
    assert said[:3] == [("Ann", "kept"), ("Bo", "changed"), ("Bo", "kept")]
    assert len(said) == 6


def test_a_kept_label_is_that_of_all_copies(table: Path, decisions: LabelDecisions) -> None:
    before = decisions.standing()
    decisions.decide(known_picture(str(table.parent / "pictures" / "3.png")), "Ann", "kept", "", "moss", 0)
    by = {row["id"]: (row["kind"], row["label_before"], row["decision"]) for row in exported(table)}
    assert (by["3"], by["12"]) == (("moss", "moss", "kept"), ("moss", "sky", "kept"))
    assert len(decisions.standing()) == 1
    assert before == {}, "an answer stays as it was given"


def test_who_was_slower_changes_nothing(table: Path, decisions: LabelDecisions) -> None:
    picture = known_picture(str(table.parent / "pictures" / "3.png"))
    decisions.decide(picture, "Ann", "changed", "sky", "moss", 0)
    slower = decisions.decide(picture, "Bo", "kept", "", "moss", 0)
    assert isinstance(slower, Conflict)
    assert slower.latest.author == "Ann"
    assert decisions.standing()[picture.key]["label"] == "sky"


def test_labels_of_no_class_and_changed_pictures_are_refused(table: Path, decisions: LabelDecisions) -> None:
    name = str(table.parent / "pictures" / "3.png")
    picture = known_picture(name)
    with pytest.raises(InputError) as wrong:
        decisions.decide(picture, "Ann", "changed", "mos", "moss", 0)
    assert str(wrong.value) == "The label must be one of 2 classes, got 'mos'. Did you mean 'moss'?"
    with pytest.raises(InputError, match=r"^The decision must be one of changed, kept, postponed"):
        decisions.decide(picture, "Ann", "wrong", "", "moss", 0)
    Image.new("RGB", (9, 9)).save(name)
    with pytest.raises(DataError, match=r"3\.png has changed since the page was started\."):
        known_picture(name, picture.key)
    assert decisions.standing() == {}


def test_the_corrected_table_has_all_columns_and_the_original_is_left(table: Path, decisions: LabelDecisions) -> None:
    original, folder = table.read_bytes(), table.parent / "pictures"
    decisions.decide(known_picture(str(folder / "3.png")), "Ann", "changed", "sky", "moss", 0)
    decisions.decide(known_picture(str(folder / "5.png")), "Bo", "left_out", "", "sky", 0)
    decisions.decide(known_picture(str(folder / "6.png")), "Bo", "postponed", "", "moss", 0)
    rows = exported(table)
    assert table.read_bytes() == original
    by = {row["id"]: row for row in rows}
    assert "5" not in by
    assert len(rows) == 12
    assert {k: by["3"][k] for k in ("kind", "label_before", "decision", "decided_by", "note", "file")} == {
        "kind": "sky", "label_before": "moss", "decision": "changed", "decided_by": "Ann", "note": "a, b",
        "file": "pictures/3.png",
    }  # fmt: skip
    assert (by["12"]["kind"], by["12"]["note"]) == ("sky", "'=1")
    assert (by["6"]["kind"], by["6"]["decision"]) == ("moss", "postponed")
    assert (by["0"]["kind"], by["0"]["decision"], by["0"]["label_before"]) == ("moss", "", "")
    assert len(exported(table)) == 12  # over its own


def test_a_table_that_changed_is_told_and_decisions_stay(table: Path, decisions: LabelDecisions) -> None:
    decisions.decide(known_picture(str(table.parent / "pictures" / "3.png")), "Ann", "changed", "sky", "moss", 0)
    table.write_text(table.read_text().replace("0.png,moss", "0.png,sky"))
    with pytest.raises(DataError) as told:
        exported(table)
    folder = table.parent / "check"
    assert str(told.value) == (
        f"{table} has changed since the check in {folder}. Run seewhy check {table} -o {folder} again; your decisions "
        "are kept."
    )
    assert not (table.parent / "corrected.csv").exists()
    assert len(decisions.standing()) == 1
    (folder / "check.json").write_text("{}")
    with pytest.raises(
        DataError,
        match=r"check\.json is not a valid file of seewhy check: .*Field required.*Run seewhy check",
    ):
        exported(table)
    done = CliRunner().invoke(app, ["check", str(table), "--export", "x.csv"])
    assert str(done.exception).startswith(
        "--serve and --export require --from FOLDER, the folder of an earlier check, and --from requires one of "
        "them. Example: seewhy check DATA --from FOLDER --serve"
    )


def test_a_check_in_which_a_part_is_missing_or_another_is_told(table: Path) -> None:
    exported(table)
    folder, items = table.parent / "check", load_samples(table, image="file", label="kind").items
    whole = json.loads((folder / "check.json").read_text())
    first = whole["findings"][0]
    wrong: list[Any] = [
        [], 3, {**whole, "classes": [1]}, {**whole, "sentence": None}, {**whole, "judged": "x"}, {**whole, "notes": 1},
        {**whole, "settings": []}, {**whole, "accuracy": "high"},
        *({**whole, "findings": [given]} for given in (
            None, {**first, "label": 3}, {**first, "with": None}, {**first, "like": {}}, {**first, "proposed": []},
            {k: v for k, v in first.items() if k != "why"},
            {**first, "like": {"own": [{"image": "a", "label": "b", "cosine": "c"}], "other": []}},
        )),
    ]  # fmt: skip
    for given in wrong:
        (folder / "check.json").write_text(json.dumps(given))
        with pytest.raises(DataError, match=r"check\.json is not a valid file of seewhy check"):
            read_check(folder, table, items)
    (folder / "check.json").write_text(json.dumps(whole))
    assert read_check(folder, table, items) == whole


def test_two_people_on_the_page(table: Path, decisions: LabelDecisions) -> None:
    samples = load_samples(table, image="file", label="kind")
    check = read_check(table.parent / "check", table, samples.items)
    assert any(f["image"].endswith("3.png") for f in check["findings"])
    served = make_check_app(
        check, Corrections(LabelledData(table, samples.items, "file", "kind"), decisions), small_picture
    )
    with TestClient(served, base_url="http://localhost:8000", raise_server_exceptions=False) as page:
        shown = page.get("/").text
        key = known_picture(str(table.parent / "pictures" / "3.png")).key
        assert f'data-key="{key}" data-given="moss"' in shown
        mine = shown.partition(f'data-key="{key}" data-given="moss">')[2].partition("</div>")[0]
        assert re.findall(r"<button[^>]*>(.*?)</button>", mine) == [
            "Keep moss", "Change to sky", "Change to <span>…</span>", "Postpone", "Leave out", "Undo",
        ]  # fmt: skip
        assert '<input class="label" list="labels" autocomplete="off">' in mine, "nothing filled in"
        assert "data:image/jpeg" in shown
        body = {"author": "Ann", "decision": "changed", "label": "sky", "given": "moss", "base": 0}
        assert page.post(f"/decide/{key}", json=body).json()["number"] == 1
        slower = page.post(f"/decide/{key}", json={**body, "author": "Bo", "decision": "kept"})
        assert slower.status_code == 409
        assert slower.json()["error"].startswith("Ann decided first: changed, sky.")
        assert page.get("/decisions").json()[key]["author"] == "Ann"
        wrong = page.post(f"/decide/{key}?format=json", json={**body, "label": "sand", "base": 1})
        assert "must be one of 2 classes" in wrong.json()["error"]
        undone = page.post(f"/undo/{key}", json={"author": "Bo", "base": 1}).json()
        assert (undone["decision"], undone["author"]) == ("undecided", "Bo")
        assert [v["decision"] for v in page.get(f"/history/{key}").json()] == ["changed", "undecided"]
        assert page.post("/decide/0123456789abcdef", json=body).status_code == 422
        page.post(f"/decide/{key}", json={**body, "base": 2})
        assert exported(table)[3]["kind"] == "sky"
        assert page.get("/corrected.csv").content == (table.parent / "corrected.csv").read_bytes()
        assert page.get("/?format=json").json()["digest"] == check["digest"]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH, so no page can be opened")
def test_two_people_in_a_browser_a_kill_an_undo_and_the_table(table: Path, command: list[str]) -> None:
    """What the page says is kept is there after the server was killed."""
    pytest.importorskip("websocket", reason="websocket-client is not installed, so the browser cannot be spoken to")
    how = [*command, "check", str(table), "--column", "image=file", "--column", "label=kind"]
    how += ["--from", str(table.parent / "check")]
    key = known_picture(str(table.parent / "pictures" / "3.png")).key
    row = f"document.querySelector('[data-key=\"{key}\"][data-given=moss]')"

    def served() -> tuple[subprocess.Popen[str], str]:
        server = subprocess.Popen([*how, "--serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        return server, server.stdout.readline().split(" at ")[1].split()[0]

    def named(tab: Browser, address: str, name: str) -> None:
        tab.open(address, 1200)
        tab.run(f"document.getElementById('who').value = '{name}'")

    server, address = served()
    with Browser() as ann, Browser() as bo:
        named(ann, address, "Ann")
        named(bo, address, "Bo")
        ann.run(f"{row}.querySelector('[value=changed]').click()")
        until(ann, f"{row}.querySelector('output').value === 'Changed to sky by Ann.'")
        server.send_signal(signal.SIGKILL)
        server.communicate()
        bo.run(f"{row}.querySelector('[value=postponed]').click()")
        until(bo, f"{row}.querySelector('output').value.startsWith('Not saved: ')")
        server, address = served()
        named(bo, address, "Bo")
        until(bo, f"{row}.querySelector('output').value === 'Changed to sky by Ann.'")
        assert [r["kind"] for r in exported(table) if r["id"] == "3"] == ["sky"]
        bo.run(f"{row}.querySelector('[value=undo]').click()")
        until(bo, f"{row}.querySelector('output').value === 'Undone by Bo.'")
        assert [r["kind"] for r in exported(table) if r["id"] == "3"] == ["moss"]
        bo.run(f"{row}.querySelector('.label').value = 'sand'; {row}.querySelector('.label').dispatchEvent("
               f"new Event('input', {{bubbles: true}})); {row}.querySelector('.typed').click()")  # fmt: skip
        until(bo, f"{row}.querySelector('output').value.includes('must be one of 2 classes')")
    server.terminate()
    server.communicate()
