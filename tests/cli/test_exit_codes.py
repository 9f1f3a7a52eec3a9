"""A picture that cannot be read: which commands end with 0 because their result is whole without it, and which do not.

A command that owes a result for each picture ends with 1. With ``--strict`` every command does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from coloured import masked, squares
from seewhy.cli import app, main
from seewhy.cli.session import ROW_FOR_EACH
from tiny import CLASSES, class_folders

WHOLE_WITHOUT_IT = """
fit train -o new --set n_crops=0
check train -o checked
check train --against test
check test --against train
index train -o library
index train -o vectors --parquet
evaluate train -m m --n-explained 0
evaluate captions.csv --retrieval
evaluate train -m m --against fit
describe match train --descriptions words.json -o captions.jsonl
study transfer train -e lite0 --set shots=1 --set parts=0.5 --set n_seeds=2 --set n_corrupted=0
app --annotate texts.sqlite --data train --export texts.jsonl
"""
ROOT = Path(__file__).parents[2]
A_ROW_FOR_EACH = """
predict train -m m
predict train -m m -o rows.csv
predict train -m m --parquet -o decisions
predict train --finding rust
explain train/moss -m m --no-measure
explain train/moss -m m --no-measure --parquet -o reasons
segment masked --labels "red, green"
detect squares --labels "red, green"
describe images train/moss -m m -o long.jsonl --no-check
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        class_folders(Path("train"), 6, CLASSES[:3], side=64)
        class_folders(Path("test"), 2, CLASSES[:3], side=64)
        masked(Path("masks"), 3)
        squares(Path("boxes"), 3)
        for new, old in (("masked", "masks/images"), ("squares", "boxes")):
            Path(new).mkdir()
            for file in [*Path(old).rglob("*.png")][:2]:
                (Path(new) / file.name).write_bytes(file.read_bytes())
        texts = "".join(f'"{c}": ["a {c} texture", "something flat"], ' for c in CLASSES[:3])
        Path("words.json").write_text("{" + texts.rstrip(", ") + "}")
        assert code("fit train -o m --set n_crops=0") == 0
        for name in ("train/moss", "masked", "squares"):
            (Path(name) / "half.png").write_bytes((Path("train/rust/rust_0.png")).read_bytes()[:200])
        rows = [(str(file), f"a photo of {file.parent.name}") for file in sorted(Path("train").rglob("*.png"))]
        pd.DataFrame(rows, columns=["image", "text"]).to_csv("captions.csv", index=False)
    return folder


def code(line: str) -> int:
    import shlex

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["seewhy", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.mark.parametrize("line", lines(WHOLE_WITHOUT_IT))
def test_a_result_that_is_whole_without_the_picture(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    said = code(line), capfd.readouterr().err
    assert said[0] == 0, said[1]
    assert "half.png" in said[1], "the picture is named"


@pytest.mark.parametrize("line", lines(A_ROW_FOR_EACH))
def test_a_result_that_owes_a_row_for_each_picture(line: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert code(line) == 1


def test_strict_stops_at_a_broken_picture_only(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert code("predict train/rust -m m --strict") == 0
    assert code("check test --strict") == 0
    for line in ("check train", "index train -o strict --parquet", "evaluate train -m m --against fit"):
        assert code(f"{line} --strict") == 1, "for those who want to stop there"


def test_the_page_lists_every_command() -> None:
    """In one of two rows of the table about pictures that cannot be read."""
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    table = page[page.index("| A picture cannot be read |") :].partition("\n\n")[0]
    zero, one = (re.findall(r"`([a-z -]+)`", row) for row in table.splitlines()[2:4])
    assert sorted(one) == sorted(ROW_FOR_EACH)
    verbs = {str(c.name) for c in app.registered_commands} | {"study"}
    verbs |= {f"describe {name}" for name in ("write", "match", "images")}
    assert {*zero, *one} == verbs - {"methods", "doctor", "serve", "search"}
