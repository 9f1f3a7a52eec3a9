"""The corrected table: every row of the data once, with what was decided on its picture, and nothing else changed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from seewhy.encoders.stream import file_digest
from seewhy.errors import DataError, ForeignFileError, InputError
from seewhy.language.annotation.labels import (
    Corrections,
    LabelDecisions,
    LabelledData,
    check_corrected,
    known_picture,
    write_corrected,
)
from seewhy.language.annotation.records import Picture, Version
from seewhy.language.annotation.store import AnnotationStore, Conflict
from seewhy.pictures.samples import Sample, load_samples
from seewhy.service.app.deciding import make_check_app
from seewhy.service.app.settings import Settings


def drawn(root: Path, n: int) -> list[Path]:
    """Pictures that differ."""
    root.mkdir(parents=True, exist_ok=True)
    files = [root / f"{i}.png" for i in range(n)]
    for i, file in enumerate(files):
        Image.fromarray(np.full((6, 9, 3), 10 * i, np.uint8)).save(file)
    return files


def stands(file: Path, decision: str, label: str, given: str = "moss") -> tuple[str, dict[str, Any]]:
    digest = file_digest(file)
    assert digest is not None
    return digest[:16], {"decision": decision, "label": label, "given": given, "author": "Ann", "made": "2026-01-02"}


def read(path: Path, *columns: str) -> LabelledData:
    return LabelledData(path, load_samples(path).items, *columns)


def test_what_was_confirmed_counts_for_copies_and_what_was_undone_for_nobody(tmp_path: Path) -> None:
    files = drawn(tmp_path / "data", 4)
    (tmp_path / "data" / "copy.png").write_bytes(files[0].read_bytes())
    rows = [("0.png", "moss"), ("1.png", "moss"), ("2.png", "moss"), ("3.png", "moss"), ("copy.png", "sky")]
    table = tmp_path / "data" / "a.CSV"
    table.write_text("image,label,note\n" + "".join(f"{a},{b},\n" for a, b in rows))
    found = dict([
        stands(files[0], "kept", "moss"), stands(files[1], "postponed", "sky"), stands(files[2], "undecided", ""),
        stands(files[3], "changed", "rust"),
    ])  # fmt: skip
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "b.csv"
    said = write_corrected(out, read(table), found)
    assert said == {"changed": 1, "kept": 2, "left_out": 0, "postponed": 1, "outdated": 0, "n": 5}
    assert out.read_text().splitlines()[0] == "image,label,note,label_before,decision,decided_by,decided_at"
    given = [tuple(row.values()) for row in csv.DictReader(out.read_text().splitlines())]
    decided = ("Ann", "2026-01-02")
    assert given == [
        ("../data/0.png", "moss", "", "moss", "kept", *decided),
        ("../data/1.png", "moss", "", "moss", "postponed", *decided),
        ("../data/2.png", "moss", "", "", "", "", ""),
        ("../data/3.png", "rust", "", "moss", "changed", *decided),
        ("../data/copy.png", "moss", "", "sky", "kept", *decided),
    ]
    # Corrected once more, from the table that was written: its own columns are not doubled.
    again = tmp_path / "out" / "c.csv"
    write_corrected(again, read(out), found)
    assert again.read_text().splitlines()[0] == out.read_text().splitlines()[0]


def test_class_folders_become_a_table(tmp_path: Path) -> None:
    for name in ("moss", "sky"):
        drawn(tmp_path / "photos" / name, 2)
    said = write_corrected(tmp_path / "a.csv", read(tmp_path / "photos", "file", "kind"), {})
    assert said["n"] == 4
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [(row["file"], row["kind"]) for row in rows] == [
        (f"photos/{name}/{i}.png", name) for name in ("moss", "sky") for i in (0, 1)
    ]


def test_class_folders_named_from_here_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path("a") / "photos"
    for name in ("moss", "sky"):
        drawn(data / name, 1)
    write_corrected(Path("b.csv"), LabelledData(data, load_samples(data).items), {})
    rows = list(csv.DictReader(Path("b.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["a/photos/moss/0.png", "a/photos/sky/0.png"]


def test_rows_without_a_picture_stay_without_one(tmp_path: Path) -> None:
    drawn(tmp_path, 2)
    (tmp_path / "a.csv").write_text("image,label\n0.png,moss\n,sky\n1.png,sky\n")
    write_corrected(tmp_path / "b.csv", read(tmp_path / "a.csv"), {})
    assert (tmp_path / "b.csv").read_text().splitlines()[1:] == ["0.png,moss,,,,", ",sky,,,,", "1.png,sky,,,,"]


def test_cells_that_are_no_text_are_json(tmp_path: Path) -> None:
    drawn(tmp_path, 2)
    rows = [{"image": "0.png", "label": "moss", "tags": ["ü", 1]}, {"image": "1.png", "label": "sky", "tags": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_corrected(tmp_path / "b.csv", read(tmp_path / "a.jsonl"), {})
    told = [row["tags"] for row in csv.DictReader((tmp_path / "b.csv").read_text("utf-8").splitlines())]
    assert told == ['["ü", 1]', ""]


def test_where_a_corrected_table_can_be_written(tmp_path: Path) -> None:
    drawn(tmp_path, 1)
    with pytest.raises(DataError) as told:
        check_corrected(tmp_path / "a.tsv", tmp_path / "a.csv", False)
    assert str(told.value) == (f"The name of a corrected table must end in .csv, got {tmp_path / 'a.tsv'}.")
    assert check_corrected(tmp_path / "a.CSV", tmp_path / "a.csv", False) == tmp_path / "a.CSV"
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("image,label\n0.png,moss\n")
    data, other = read(tmp_path / "a.csv"), tmp_path / "b.csv"
    for refused in (
        lambda: check_corrected(other, data.path, False),
        lambda: write_corrected(other, data, {}),
        lambda: write_corrected(data.path, data, {}, force=True),
    ):
        with pytest.raises(ForeignFileError):
            refused()
    assert check_corrected(other, data.path, True) == other
    write_corrected(other, data, {}, force=True)
    assert "decided_by" in other.read_text()
    with pytest.raises(
        ForeignFileError,
        match=r"is also an input, and would be overwritten\. Choose another name; --force does not help\.",
    ):
        write_corrected(other, read(other), {})  # its own, and yet the data
    assert data.path.read_text() == "image,label\n0.png,moss\n"


@pytest.fixture
def decisions(tmp_path: Path) -> Any:
    store = AnnotationStore(tmp_path / "decisions.sqlite")
    yield LabelDecisions(store, ("moss", "sky"))
    store.close()


def test_a_picture_is_known_by_its_bytes_and_upright(tmp_path: Path, decisions: LabelDecisions) -> None:
    (file,) = drawn(tmp_path / "a", 1)
    digest = file_digest(file)
    assert digest is not None
    assert known_picture(str(file)) == Picture(digest[:16], digest, str(file), 9, 6)
    assert known_picture(str(file), digest[:16]).key == digest[:16]
    file.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="Repair the file"):
        known_picture(str(file))


def test_only_a_correction_has_another_label_and_undoing_needs_what_was_seen(
    tmp_path: Path, decisions: LabelDecisions
) -> None:
    picture = known_picture(str(drawn(tmp_path / "a", 1)[0]))
    saved = decisions.decide(picture, "Ann", "left_out", "sky", "of no class", 0)
    assert isinstance(saved, Version)
    now = decisions.standing()[picture.key]
    assert (now["label"], now["given"]) == ("of no class", "of no class")
    decisions.decide(picture, "Bo", "changed", "sky", "of no class", 1)
    now = decisions.standing()[picture.key]
    assert (now["label"], now["given"]) == ("sky", "of no class")
    assert isinstance(decisions.undo(picture.key, "Ann", 1), Conflict), "Bo's was not seen"
    assert isinstance(decisions.undo(picture.key, "Ann", 2), Version)
    assert isinstance(decisions.undo(picture.key, "Ann", 3), Version)
    now = decisions.standing()[picture.key]
    assert (now["decision"], now["label"], now["given"], now["undone"]) == ("undecided", "", "of no class", True)
    # After undoing, a new decision is no undoing, and undoing that goes back to open.
    decisions.decide(picture, "Ann", "postponed", "", "of no class", 4)
    assert decisions.standing()[picture.key]["undone"] is False
    with pytest.raises(InputError, match=r"^The label must be .* got 'x'\. The first are moss, sky\.$"):
        decisions.decide(picture, "Ann", "changed", "x", "moss", 5)


def test_the_page_holds_what_is_sent_to_its_limits(tmp_path: Path, decisions: LabelDecisions) -> None:
    picture = known_picture(str(drawn(tmp_path / "a", 1)[0]))
    finding = {"kind": "label", "image": picture.name, "label": "moss", "proposed": "sky", "key": picture.key}
    rest = {"doubt": 1.0, "why": ".", "with": [], "like": {"own": [], "other": []}}
    broken = {**finding, **rest, "kind": "broken", "key": "", "image": str(tmp_path / "none.png"), "proposed": None}
    check = {
        "findings": [{**finding, **rest}, broken], "classes": ["moss", "sky"], "notes": [], "settings": {},
        "sentence": "One.", "accuracy": None, "judged": 0, "digest": "d",
    }  # fmt: skip
    data = LabelledData(tmp_path, (Sample(picture.name, "moss"),))
    served = make_check_app(check, Corrections(data, decisions), lambda _: None, Settings(names=("pictures.test",)))
    base = "http://pictures.test:8000"
    body = {"author": "Ann", "decision": "postponed", "given": "moss", "base": 0}
    with TestClient(served, base_url=base, raise_server_exceptions=False) as page:
        for wrong in (
            {"base": -1},
            {"base": 10**9 + 1},
            {"decision": "x" * 41},
            {"given": "sky"},
            {"author": "x" * 1001},
        ):
            assert 400 <= page.post(f"/decide/{picture.key}", json={**body, **wrong}).status_code < 500, wrong
        assert decisions.standing() == {}
        done = page.post(f"/decide/{picture.key}", json=body)
        assert (done.status_code, done.json()["label"]) == (200, "moss")
        slower = page.post(f"/undo/{picture.key}", json={"author": "Bo", "base": 0})
        assert (slower.status_code, slower.json()["state"]["number"]) == (409, 1)
        assert page.post(f"/undo/{picture.key}", json={"author": "Bo", "base": 1}).json()["decision"] == "undecided"
        late = page.post(f"/decide/{picture.key}", json={**body, "base": 1}).json()
        assert late["error"].startswith("Bo decided first: undecided, no label.")
        Image.new("RGB", (3, 3)).save(picture.name)
        changed = page.post(f"/decide/{picture.key}?format=json", json={**body, "base": 2})
        assert "has changed since the page was started" in changed.json()["error"]
