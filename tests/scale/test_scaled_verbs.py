"""``predict`` and ``explain`` into Parquet say what they say one by one; an index takes what ``embed`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.cli.many import Predict, Spread
from seewhy.cli.options import ClassifierChoice
from seewhy.cli.session import Session
from seewhy.explanation.prediction import Prediction, Ranked
from seewhy.retrieval import Index
from seewhy.scale.run import Part, Run
from seewhy.scale.work import Embed
from seewhy.types import Failure
from simulated_work import rows


def invoke(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments, "--quiet"], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaled") / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(draw.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.mark.slow
def test_rows_say_what_the_commands_say(photos: Path, tmp_path: Path) -> None:
    asked = [str(photos), "--labels", "stripes,dots,noise"]
    told = [json.loads(line) for line in invoke("predict", *asked, "--json", code=1).splitlines()]
    many = ["--parquet", "--set", "per_shard=4", "-o"]
    invoke("predict", *asked, *many, str(tmp_path / "decisions"), code=1)
    for row, one in zip(rows(tmp_path / "decisions"), told, strict=True):
        assert row["image"] == Path(one["image"]).name
        assert (row["label"], row["error"]) == (one.get("label"), one.get("error"))
        assert row["top"] == one.get("top")
        assert (row["right"], row["set"]) == (None, None)
    assert json.loads(invoke("index", "--status", str(tmp_path / "decisions"), "--json"))["verb"] == "predict"
    told = [json.loads(line) for line in invoke("explain", *asked, "--no-measure", "--json", code=1).splitlines()]
    invoke("explain", *asked, "--no-measure", *many, str(tmp_path / "why"), code=1)
    for row, one in zip(rows(tmp_path / "why"), told, strict=True):
        if row["error"] is None:
            shown = json.loads(row["explanation"])
            assert shown["where"]["heat"] == one["where"]["heat"]
            assert (row["label"], row["where"]) == (one["label"], one["where"]["verdict"])
    done = CliRunner().invoke(app, ["predict", *asked, "--top", "2", *many, str(tmp_path / "decisions")])
    assert (
        "decisions belongs to another run: the top 5, not 2. Choose another folder, or run with the same input and "
        "options as before."
    ) in str(done.exception)


@pytest.mark.slow
def test_an_index_takes_the_vectors_of_a_run(photos: Path, tmp_path: Path) -> None:
    run, whole = (
        tmp_path / "vectors",
        ["index", "--parquet", str(photos), "--set", "per_shard=2", "-o", str(tmp_path / "vectors")],
    )
    invoke(*whole, "--shard", "1/2")
    done = CliRunner().invoke(app, ["index", str(run), "-o", str(tmp_path / "library"), "--json"])
    told = json.loads(done.stdout)
    assert (told["added"], told["notes"]) == (
        3,
        [f"1 of 3 shards of {run} are missing. Add the run again when they exist."],
    )
    invoke(*whole)
    told = json.loads(invoke("index", str(run), "-o", str(tmp_path / "library"), "--json"))
    assert (told["added"], told["unchanged"], told["n"]) == (2, 3, 5)
    invoke("index", str(photos), "-o", str(tmp_path / "looked"))
    taken, looked = Index.open(tmp_path / "library"), Index.open(tmp_path / "looked")
    assert sorted(taken.names()) == sorted(looked.names())
    order = [taken.names().index(name) for name in looked.names()]
    np.testing.assert_allclose(taken.vectors().numpy()[order], looked.vectors().numpy(), atol=1e-6)
    invoke("index", "--parquet", str(photos), "--set", "space=words", "-o", str(tmp_path / "words"))
    done = CliRunner().invoke(app, ["index", str(tmp_path / "words"), "-o", str(tmp_path / "library")])
    assert str(done.exception).startswith(
        f"{tmp_path / 'words'} has no vectors of whole pictures. Give the output folder of seewhy index --parquet."
    )


def test_parquet_takes_one_input_and_a_place(tmp_path: Path) -> None:
    for arguments, says in (
        (["a", "b", "-o", "out"], "--parquet requires one folder, table or address of shards as input."),
        (["-", "-o", "out"], "--parquet requires one folder, table or address of shards as input."),
        (["a"], "--parquet requires an output folder. Give one with -o."),
    ):
        done = CliRunner().invoke(app, ["predict", "--parquet", *arguments])
        assert str(done.exception).startswith(says)
    done = CliRunner().invoke(app, ["explain", "a", "--parquet", "-o", "out", "--masks", "m.png"])
    assert str(done.exception).startswith(
        "--parquet cannot be combined with --masks, because --parquet writes tables only. Use only one of them."
    )


@pytest.mark.parametrize(
    ("failed", "unread", "code"), [(0, [], 0), (1, [], 0), (0, [{"shard": "a.tar", "error": "broken"}], 1)]
)
def test_what_the_options_say_is_what_is_run(
    failed: int, unread: list[dict[str, str]], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def run(work: Any, given: Any, output: Path, **how: Any) -> Run:
        told.update(how, work=work, given=given, output=output)
        return Run(str(output), n_shards=6, n_part=3, done=2, there=1, rows=9, failed=failed, unread=unread)

    monkeypatch.setattr("seewhy.scale.run.run", run)
    (tmp_path / "t.csv").write_text("photo\n")
    asked = [
        "index",
        "--parquet",
        str(tmp_path / "t.csv"),
        "-o",
        str(tmp_path / "out"),
        "--shard",
        "2/2",
        "--set",
        "per_shard=7",
    ]
    asked += ["--column", "image=photo", "--workers", "2", "--set", "threads=5", "-e", "small", "--engine", "torch"]
    said = invoke(*asked, "--set", "space=words", "--set", "dtype=float16", code=code)
    assert told["work"] == Embed("small", "torch", "words", "float16")
    assert (told["given"].per_shard, told["given"].column, told["output"]) == (7, "photo", tmp_path / "out")
    assert (told["part"], told["workers"], told["threads"], told["cluster"]) == (Part(2, 2), 2, 5, None)
    lines = [f"{tmp_path / 'out'}: 2 shards done of the 3 in this part, 1 existed before; 9 rows"]
    lines += ["  not readable: 1; the column error has the reasons"] * failed
    lines += ["  shards left out: 1; run the same command to try them again"] * len(unread)
    assert said.splitlines() == lines
    asked = ["predict", *asked[1:5], "--validation", "v.csv", "--column", "image=photo", "--column", "label=kind"]
    invoke(*asked, code=1 if failed else code)
    assert told["work"].chosen.columns == {"image": "photo", "label": "kind"}


@pytest.mark.parametrize("reject", [True, False])
def test_a_picture_is_rejected_only_if_that_is_asked(reject: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.cli.many._model", lambda *_: None)
    monkeypatch.setattr("seewhy.cli.many._predict_row", lambda result: result)
    decision: Any = SimpleNamespace(is_unknown=True, probability=None, verdict="unknown")
    found = Prediction("a.png", (Ranked("cat", 0.9),), decision=decision)
    classifier = SimpleNamespace(predict_all=lambda pictures, **_: iter([found, Failure("b.png", "is none")]))
    chosen: Any = SimpleNamespace(classifier=lambda: classifier)
    opened: Any = Predict(chosen, reject=reject).open()
    first, second = opened.results(iter(["a.png", "b.png"]))
    assert (first.rejected, second) == (reject, Failure("b.png", "is none"))


def test_the_columns_are_those_of_the_validation_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.csv").write_text("photo,kind\nmoss.png,moss\nfern.png,fern\n")
    labels: list[str] = []
    monkeypatch.setattr("seewhy.classifiers.words.measured_on", lambda _, samples, *__: labels.extend(samples.classes))
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: None)
    columns = {"image": "photo", "label": "kind"}
    ClassifierChoice(None, None, "lite0", "auto", validation=tmp_path / "v.csv", columns=columns).classifier()
    assert labels == ["fern", "moss"]


def test_the_usual_column_is_any_of_the_usual_names() -> None:
    assert Spread(5).input(Session("index", None), "memory://a").column is None
