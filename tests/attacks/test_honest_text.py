"""Names and words that would steer a terminal, split a line, run in a spreadsheet, or slip into another column."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hostile import photo
from seewhy.printable import from_spreadsheet, printable, spreadsheet_safe

NASTY = "a\x1b[31mred\nb\u202egpj\u2028c\x9bd\te\r=1.png"


def steers(text: str) -> bool:
    return any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in "\u202e\u2066\u200f\ufeff" for c in text)


@given(st.text())
def test_nothing_steers_and_json_stays_what_it_was(text: str) -> None:
    assert not steers(printable(text))
    line = printable(json.dumps({"name": text}, ensure_ascii=False))
    assert json.loads(line) == {"name": text}
    assert len(line.splitlines()) == 1


def test_writing_of_all_kinds_is_left_as_it_is() -> None:
    for text in ("straße", "👩\u200d🔬", "نمی\u200cخواهم", "日本語 ok", "a\\nb", "caf\udce9"):
        assert printable(text) == text
    assert printable(NASTY) == ("a\\u001b[31mred\\nb\\u202egpj\\u2028c\\u009bd\\te\\r=1.png")


@given(st.text(alphabet="'=+-@\t\r\n＝＋－＠ab ", max_size=6))
def test_a_guarded_cell_comes_back(cell: str) -> None:
    guarded = spreadsheet_safe(cell)
    assert not guarded or guarded[0] not in "=+-@\t\r\n＝＋－＠"
    assert from_spreadsheet(guarded) == cell


def seewhy(*arguments: object, where: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-X", "utf8", "-m", "seewhy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, cwd=where, timeout=300, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    Image.fromarray(photo()).save(folder / NASTY)
    (folder / ("bad" + NASTY)).write_bytes(b"no picture")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--json", "--csv", "text"])
def test_through_the_command_line(nasty: Path, form: str) -> None:
    flags = [] if form == "text" else [form]
    label = "=cmd|'/c calc'!A1,-moss\x1b[2J"
    done = seewhy("predict", ".", "-l", label, "--store", "none", *flags, where=nasty)
    assert done.returncode == 1, done.stderr
    out, err = done.stdout.decode(), done.stderr.decode()
    assert not steers(err.replace("\n", ""))
    assert len([line for line in err.split("\n") if line.startswith("seewhy: ")]) == 2
    if form == "--csv":
        rows = list(csv.DictReader(out.splitlines(keepends=True)))
        assert sorted(Path(from_spreadsheet(r["image"])).name for r in rows) == sorted([NASTY, "bad" + NASTY])
        labels = [r["label"] for r in rows if r["label"]]
        assert labels
        assert all(cell.startswith("'") for cell in labels)
        return
    assert not steers(out.replace("\n", "").replace("\t", "" if form == "text" else "\t"))
    lines = out.rstrip("\n").split("\n")
    assert len(lines) == 2
    if form == "--json":
        assert sorted(Path(json.loads(line)["image"]).name for line in lines) == sorted([NASTY, "bad" + NASTY])
    else:
        assert sorted(len(line.split("\t")) for line in lines) == [2, 4]
