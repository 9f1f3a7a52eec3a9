"""The command line as people and scripts meet it: the real entry point, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from seewhy.cli import main
from tiny import CLASSES, class_folders

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
VERBS = ("explain", "fit", "predict", "evaluate", "methods", "doctor")


@pytest.fixture(scope="session")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cwd")


@pytest.fixture(scope="session")
def run(own_cache: Path, cwd: Path) -> Run:
    """Runs ``seewhy ARGUMENTS`` in an empty folder."""

    def call(*arguments: object, stdin: str = "", where: Path = cwd) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "seewhy", *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=where, timeout=300)

    return call


@pytest.fixture
def run_here(cwd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The same in this process, which has torch already: two seconds less a call."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["seewhy", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return subprocess.CompletedProcess(sys.argv, int(code or 0), *capsys.readouterr())

    return call


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures") / "train", 4, CLASSES[:3], side=240)


@pytest.fixture(scope="session")
def pictures(folders: Path) -> list[str]:
    return [str(folders / c / f"{c}_{i}.png") for i in (0, 1) for c in CLASSES[:3]]


@pytest.fixture(scope="session")
def fitted(run: Run, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    model = tmp_path_factory.mktemp("models") / "textures"
    words = model.parent / "words.json"
    words.write_text(json.dumps({c: [f"a {c} texture", "something flat"] for c in CLASSES[:3]}))
    done = run("fit", folders, "-o", model, "--set", "n_crops=1", "--descriptions", words, "--json")
    assert done.returncode == 0, done.stderr
    return model, rows(done)[0]


def test_help_costs_no_torch() -> None:
    for arguments in (["--help"], ["predict", "--help"], ["--version"]):
        code = (
            "import sys\nfrom seewhy.cli import main\n"
            f"sys.argv = ['seewhy', *{arguments!r}]\n"
            "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
            "heavy = {'torch', 'timm', 'numpy', 'PIL', 'openvino'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_help_names_every_verb_and_bare_calls_show_it(run: Run) -> None:
    shown = run("--help").stdout
    assert all(verb in shown for verb in VERBS)
    assert all(verb in run().stdout + run().stderr for verb in VERBS)


def test_methods(run: Run, run_here: Run) -> None:
    found = rows(run("methods", "--json"))
    keys = {"family", "name", "paper", "needs", "cost", "summary"}
    assert all(keys <= set(row) and all(row[k] for k in keys) for row in found)
    names = {(row["family"], row["name"]) for row in found}
    assert {("where", "grad_cam"), ("classifier", "linear"), ("like what", "nearest"), ("metric", "deletion")} <= names
    assert "grad_cam" in run_here("methods").stdout
    named = {row["family"]: row for row in rows(run_here("methods", "linear", "--json"))}
    assert named.keys() == {"classifier", "segmenter", "detector"}
    linear = named["classifier"]
    assert {"name": "n_crops", "kind": "a whole number", "default": "8"} in linear["settings"]


def test_doctor(run: Run, run_here: Run, own_cache: Path) -> None:
    done = run("doctor", "--json")
    (found,) = rows(done)
    assert done.returncode == 0
    assert found["models"]["lite0"] is True
    assert found["cache"] == str(own_cache)
    assert {"openvino", "onnxruntime", "torch"} == {engine["name"] for engine in found["engines"]}
    assert {"seewhy", "packages", "extras"} <= set(found)
    assert "lite0" in run_here("doctor").stdout
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(found["extras"]) == set(extras) - {"all", "demo", "dev", "fast"}


NO_FOLDER = "no such file or directory. Create the folder {cwd}/no first.\n"
MISTAKES: list[tuple[Sequence[object], str]] = [
    (
        ["predict", "x.png", "-m", "nowhere"],
        "seewhy: nowhere is not a saved SeeWhy classifier (seewhy.json: No such file or directory). "
        "Make one with: seewhy fit PHOTOS -o nowhere\n",
    ),
    (
        ["explain", "x.png", "-m", "nowhere", "--encoder", "nonsense"],
        "seewhy: nowhere is not a saved SeeWhy classifier (seewhy.json: No such file or directory). "
        "Make one with: seewhy fit PHOTOS -o nowhere\n",
    ),
    (
        ["explain", "x.png", "--encoder", "lite9"],
        "seewhy: There is no encoder called 'lite9'. Did you mean 'lite2' or 'lite1' or 'lite0'?\n",
    ),
    (
        ["fit", "nowhere", "-o", "model"],
        "seewhy: nowhere does not exist. Give a folder with one folder per class, or a table ending "
        "in .csv, .tsv, .jsonl, .parquet with the columns 'image' and 'label'.\n",
    ),
    (["predict", "x.png", "-o", "no/x.csv"], f"seewhy: no/x.csv could not be written: {NO_FOLDER}"),
    (["evaluate", "pictures", "-o", "no/x.html"], f"seewhy: no/x.html could not be written: {NO_FOLDER}"),
    (
        ["fit", "pictures", "-o", os.devnull],
        f"seewhy: {os.devnull} exists and is not a saved SeeWhy classifier. Give another name.\n",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    MISTAKES,
    ids=["model", "own encoder", "encoder", "data", "file", "report", "folder"],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run_here: Run, cwd: Path, arguments: Sequence[object], message: str
) -> None:
    done = run_here(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == message.replace("{cwd}", str(cwd))


def test_a_mistake_is_one_line_and_exit_code_2_in_a_process_of_its_own(run: Run) -> None:
    arguments, message = MISTAKES[0]
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


ENDING = """
import sys, typer
from seewhy import cli
cli.app = typer.Typer()
@cli.app.command()
def verb() -> None:
    {body}
sys.argv = ["seewhy"]
cli.main()
"""


def test_ctrl_c_says_how_to_go_on() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING.format(body="raise KeyboardInterrupt")], capture_output=True)
    assert (done.returncode, done.stdout) == (130, b"")
    assert done.stderr == b"seewhy: stopped.\n"


@pytest.mark.parametrize("body", ["print('x')", "[print('x', flush=True) for _ in range(9)]", "print('x' * 10**6)"])
def test_a_closed_pipe_is_no_failure(body: str) -> None:
    command = [sys.executable, "-c", ENDING.format(body=body)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0


def test_names_that_are_no_unicode_are_printed_as_json_reads_them() -> None:
    body = "print(json.dumps(standard_input().readline().strip(), ensure_ascii=False))"
    imports = "import json\nfrom seewhy.cli.terminal import standard_input\n"
    command = [sys.executable, "-c", imports + ENDING.format(body=body)]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input="café\n".encode("latin-1"), capture_output=True, env=strict)
    assert (done.returncode, json.loads(done.stdout)) == (0, "caf\udce9"), done.stderr


def test_debug_shows_where_it_came_from(run: Run) -> None:
    done = run("--debug", "fit", "nowhere", "-o", "model")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "DataError: nowhere does not exist." in done.stderr


def test_wrong_usage_is_exit_code_2(run_here: Run) -> None:
    for arguments in (["predict"], ["no-such-verb"], ["fit", "x"], ["predict", "x", "--top", "0"]):
        done = run_here(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr


@pytest.mark.slow
def test_fit(fitted: tuple[Path, dict[str, Any]]) -> None:
    model, record = fitted
    assert record["model"] == str(model)
    assert (record["n_pictures"], record["n_held_out"], record["held_out_accuracy"]) == (12, 12, 1.0)
    assert record["failures"] == []
    assert (model / "seewhy.json").is_file()


@pytest.mark.slow
def test_predict_json_in_order_with_a_broken_picture(
    run: Run, fitted: tuple[Path, dict[str, Any]], pictures: list[str]
) -> None:
    asked = [*pictures[:2], "nowhere.png", *pictures[2:]]
    done = run("predict", *asked, "-m", fitted[0], "--json")
    found = rows(done)
    assert done.returncode == 1
    assert [row["image"] for row in found] == asked
    assert found[2] == {"image": "nowhere.png", "error": "does not exist; check the spelling and the folder"}
    assert done.stderr.splitlines() == [
        "seewhy: 'nowhere.png' left out: does not exist; check the spelling and the folder",
        "seewhy: 6 done, 1 could not be read (named above)",
    ]
    for row in found[:2] + found[3:]:
        assert set(row) == {"image", "label", "score", "top", "decision"}
        assert row["label"] == Path(row["image"]).parent.name
        assert row["top"][0] == {"label": row["label"], "score": row["score"]}
        assert sum(r["score"] for r in row["top"]) == pytest.approx(1, abs=1e-4)
        assert len(row["top"]) == 3


@pytest.mark.slow
def test_predict_from_standard_input_as_csv_text_and_file(
    run: Run, fitted: tuple[Path, dict[str, Any]], pictures: list[str], tmp_path: Path
) -> None:
    names = "\n".join(pictures) + "\n"
    as_csv = run("predict", "-", "-m", fitted[0], "--csv", stdin=names)
    assert as_csv.returncode == 0
    assert as_csv.stderr == ""
    lines = as_csv.stdout.splitlines()
    assert lines[0] == "image,label,score,error,verdict,right,set"
    assert [line.split(",")[0] for line in lines[1:]] == pictures
    done = run("predict", "-", "-m", fitted[0], "-o", tmp_path / "out.jsonl", stdin=names.replace("\n", "\r\n"))
    assert (done.returncode, done.stdout) == (0, "")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["image"] for row in written] == pictures
    text = run("predict", Path(pictures[0]).parent, "-m", fitted[0], "--quiet")
    assert [line.split("\t")[1] for line in text.stdout.splitlines()] == ["moss"] * 4


@pytest.mark.slow
def test_explain_json(run: Run, fitted: tuple[Path, dict[str, Any]], pictures: list[str], tmp_path: Path) -> None:
    asked = [pictures[0], "nowhere.png", pictures[1]]
    done = run("explain", *asked, "-m", fitted[0], "-o", "why", "--json", where=tmp_path)
    found = rows(done)
    assert done.returncode == 1
    assert [row["image"] for row in found] == asked
    assert set(found[1]) == {"image", "error"}
    for row in (found[0], found[2]):
        where = row["where"]
        measures = [where[k] for k in ("deletion", "insertion", "deletion_random", "insertion_random")]
        assert where["method"] == "grad_cam"
        assert all(0 <= m <= 1 for m in measures)
        assert {"image", "box", "query_box", "share"} <= set(row["like"][0])
        assert all(len(n["box"]) == len(n["query_box"]) == 4 and 0 <= n["share"] <= 1 for n in row["like"])
        assert all(Path(n["image"]).is_file() for n in row["like"])
        assert {"text", "score", "score_other"} <= set(row["words"][0])
        assert row["words"][0]["label"] == row["label"]
        assert 0 <= row["agreement"] <= 1
        card = tmp_path / row["card"]
        assert card.read_text("utf-8").startswith("<!doctype html>")
    assert (tmp_path / "why" / "index.html").is_file()
    kept = (tmp_path / "why" / "explanations.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["image"] for line in kept) == sorted(asked)
    again = run("explain", *asked, "-m", fitted[0], "-o", "why", "--json", where=tmp_path)
    assert rows(again) == found


@pytest.mark.slow
def test_explain_one_picture_into_one_file(run: Run, pictures: list[str], tmp_path: Path) -> None:
    done = run(
        "explain", pictures[0], "--labels", "moss, rust", "-o", "card.png", "--target", "rust", "--contrast", "moss",
        where=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")
    assert done.stdout.startswith(f"{pictures[0]}: ")
    two = run("explain", *pictures[:2], "-o", "card.png", where=tmp_path)
    assert two.returncode == 2
    assert two.stderr.splitlines()[-1] == "seewhy: card.png can store one card, got 2 pictures. Give a folder with -o."


@pytest.mark.slow
def test_evaluate_json(run: Run, fitted: tuple[Path, dict[str, Any]], folders: Path, tmp_path: Path) -> None:
    done = run("evaluate", folders, "-m", fitted[0], "--json", "--n-explained", 2, where=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = rows(done)
    assert {"accuracy", "n", "per_class", "calibration_error", "faithfulness"} <= set(found)
    assert (found["accuracy"], found["n"]) == (1.0, 12)
    assert [row["label"] for row in found["per_class"]] == ["moss", "rust", "sky"]
    assert found["faithfulness"]["n"] <= 2
    assert found["report"] is None
    shown = run("evaluate", folders, "-m", fitted[0], "--n-explained", 0, "-o", "r.json", where=tmp_path)
    assert "100% of 12 pictures are predicted correctly" in shown.stdout.replace("\u202f", "")
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["accuracy"] == 1.0


@pytest.mark.slow
def test_a_table_with_other_columns_and_labels_from_files(run: Run, folders: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    lines = [f"{folders / c / f'{c}_{i}.png'},{c}" for c in CLASSES[:2] for i in range(3)]
    table.write_text("file,kind\n" + "\n".join(lines) + "\n")
    (tmp_path / "names.txt").write_text("moss\nrust\n\n")
    options = ("--column", "image=file", "--column", "label=kind", "--labels", "names.txt", "--n-explained", 0)
    (found,) = rows(run("evaluate", "t.csv", *options, "--json", where=tmp_path))
    assert found["n"] == 6
    assert [row["label"] for row in found["per_class"]] == ["moss", "rust"]
