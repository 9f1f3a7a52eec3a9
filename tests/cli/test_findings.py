"""Findings through the verb: each by itself, in three forms; and what does not go with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from schemas import check
from seewhy.classifiers.prompt_pairs import PromptPairs
from seewhy.cli import app
from tiny import picture
from tiny_words import tiny_pair

ASKED = ("--finding", "moss", "--finding", "rust, red")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda name, engine: tiny_pair())
    (tmp_path / "new").mkdir()
    for i, label in enumerate(("moss", "rust")):
        Image.fromarray(picture(label, i)).save(tmp_path / "new" / f"{i}.png")
    (tmp_path / "new" / "2.png").write_bytes(b"\x89PNG")
    return tmp_path / "new"


def predict(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["predict", str(folder), "--store", "none", "--quiet", *words])


def test_each_picture_has_each_finding_in_three_forms(folder: Path) -> None:
    done = predict(folder, *ASKED, "--absent", "without {}", "--json")
    assert done.exit_code == 1  # one cannot be read
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    check("predict", rows)
    pairs = PromptPairs(absent=("without {}",))(
        tiny_pair(), [folder / "0.png", folder / "1.png"], ["moss", "rust, red"]
    )
    assert rows[:2] == [one.to_json() for one in pairs]
    assert [f["finding"] for f in rows[0]["findings"]] == ["moss", "rust, red"]
    table = list(csv.reader(predict(folder, *ASKED, "--absent", "without {}", "--csv").stdout.splitlines()))
    assert table[0] == ["image", "finding", "probability", "margin", "error"]
    assert [row[1] for row in table[1:]] == ["moss", "rust, red", "moss", "rust, red", ""]
    assert float(table[1][2]) == rows[0]["findings"][0]["probability"]
    assert table[-1][4] == rows[2]["error"]
    said = predict(folder, *ASKED, "--absent", "without {}").stdout.splitlines()
    first = rows[0]["findings"]
    moss, rust = (f"{100 * one['probability']:.1f} %" for one in first)
    assert said[0] == f"{folder / '0.png'}\tmoss {moss}\trust, red {rust}"
    assert said[2] == f"{folder / '2.png'}\tnot readable"


def test_the_usual_denials_and_a_file_that_is_known_again(folder: Path) -> None:
    out = str(folder.parent / "found.jsonl")
    for _ in range(2):
        assert predict(folder / "0.png", *ASKED, "-o", out).exit_code == 0
    (one,) = PromptPairs()(tiny_pair(), folder / "0.png", ["moss", "rust, red"])
    assert json.loads(Path(out).read_text("utf-8")) == one.to_json()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (*ASKED, "--labels", "a,b"),
            "--finding and --labels cannot be combined. Use only one of them.",
        ),
        (
            ("--absent", "no {}"),
            "`names` must have at least one finding, in words, got [].",
        ),
        (
            (*ASKED, "--absent", "nothing"),
            "`present` and `absent` must each have at least one sentence with {} for the finding, and `scale` must be "
            "greater than 0, got present=('{}',), absent=('nothing',), scale=None.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: tuple[str, ...], said: str, folder: Path) -> None:
    assert str(predict(folder, *words).exception) == said
