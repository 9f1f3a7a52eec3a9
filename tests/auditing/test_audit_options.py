"""``seewhy audit`` as it is typed: who says where objects are, and what cannot be read or written."""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from planting import CLASSES, SIDE, reader
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import main
from seewhy.dense.finders import Segmenter
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.pictures.samples import Sample, gathered
from tiny import Channels, ColourWords, build, class_folders, colours, picture

BACKGROUND = "[background]\nat_most = 0.05\nbound = 'best'\n"
ACCURACY = "[accuracy]\nat_least = 0.5\n"
LABELS = ("moss", "rust", "sky")


class Ended:
    """How a command ended."""

    def __init__(self, code: Any, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def figure(self) -> dict[str, Any]:
        return dict(json.loads(self.out)["figures"][0])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """The command as a person types it, in an empty folder, with this classifier and this contract."""
    monkeypatch.chdir(tmp_path)

    def command(classifier: Classifier, contract: str, *words: object) -> Ended:
        monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: classifier)
        Path("audit.toml").write_text(contract, "utf-8")
        words = (
            "evaluate",
            "-m",
            "model",
            *words,
            "--contract",
            "audit.toml",
            "--n-explained",
            "0",
            "--store",
            "none",
            "-q",
        )
        monkeypatch.setattr(sys, "argv", ["seewhy", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(ended.value.code, *capsys.readouterr())

    return command


def marked(root: Path) -> Path:
    """Pictures with a square in the colour of their class, masks of it and of all but it, and COCO's boxes of it."""
    images, rows = [], []
    for i in range(12):
        rng = np.random.default_rng(i)
        pixels = rng.uniform(0.1, 0.6, (SIDE, SIDE, 3))
        top, left = (8 * int(v) for v in rng.integers(1, 5, 2))
        pixels[top : top + 24, left : left + 24, i % 3] = 0.95
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top : top + 24, left : left + 24] = 255
        for folder, array in (("test", (pixels * 255).astype(np.uint8)), ("inside", mask), ("around", 255 - mask)):
            (root / folder / CLASSES[i % 3]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / CLASSES[i % 3] / f"{i}.png")
        images.append({"id": i, "file_name": f"{CLASSES[i % 3]}/{i}.png", "width": SIDE, "height": SIDE})
        rows.append({"id": i, "image_id": i, "category_id": i % 3, "bbox": [left, top, 24, 24]})
    kinds = [{"id": k, "name": name} for k, name in enumerate(CLASSES)]
    (root / "boxes.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": kinds}))
    return root


class Bright:
    """Names cells with much of a colour after it, and all others *ground*."""

    scale, compares = 1.0, False

    def scores(self, encoder: Any, features: Tensor) -> Tensor:
        return torch.cat([features, torch.full_like(features[:, :1], 0.05)], 1)

    def finish(self, scores: Tensor, keys: Tensor | None) -> Tensor:
        return scores

    def tensors(self) -> dict[str, Tensor]:
        return {}


def test_masks_and_boxes_say_where_the_object_is(run: Any, tmp_path: Path) -> None:
    marked(tmp_path)
    model = reader("cnn", False)
    inside = run(model, BACKGROUND, "test", "--masks", "inside", "--json")
    assert (inside.code, inside.figure["state"], inside.figure["n"]) == (0, "pass", 12), inside.err
    around = run(model, BACKGROUND, "test", "--masks", "around", "--json")
    assert (around.code, around.figure["state"]) == (1, "fail")
    assert around.figure["value"] > 0.3
    boxes = run(model, BACKGROUND, "test", "--masks", "boxes.json", "--json")
    assert (boxes.code, boxes.figure["value"]) == (0, inside.figure["value"])
    twice = run(model, BACKGROUND, "test", "--masks", "boxes.json", "--masks", "inside")
    assert (twice.code, twice.err) == (
        2, "seewhy: Boxes cannot be combined with another source of masks. Use only one of them.\n",
    )  # fmt: skip
    nobody = run(model, BACKGROUND, "test", "--json")
    assert (nobody.code, nobody.figure["state"]) == (1, "not measured")


def test_a_segmenter_and_words_say_where_the_object_is(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked(tmp_path)
    model = reader("cnn", False)
    segmenter = Segmenter("bright", {}, model.encoder, (*CLASSES, "ground"), Bright(), 1.0)
    monkeypatch.setattr("seewhy.dense.saving.is_segmenter", lambda folder: folder == "segmenter")
    monkeypatch.setattr("seewhy.dense.saving.load_segmenter", lambda *_, **__: segmenter)
    found = run(model, BACKGROUND, "test", "--masks", "segmenter", "--json")
    assert (found.code, found.figure["state"], found.figure["n"]) == (0, "pass", 12), found.err
    strange = run(model, BACKGROUND, "test", "--masks", "segmenter", "--object", "bird")
    assert (strange.code, strange.out) == (2, "")
    assert strange.err == ("seewhy: The segmenter has no class 'bird'. Choose one of red, green, blue, ground.\n")
    both = run(model, BACKGROUND, "test", "--masks", "segmenter", "--masks", "inside")
    assert both.code == 2
    assert both.err.startswith(
        "seewhy: --masks inside and --masks segmenter cannot be combined, because both give the "
        "position of the object. Use only one of them."
    )


def test_words_say_where_the_object_is(run: Any, tmp_path: Path) -> None:
    """Brown and blue squares among plants, by an encoder that knows the words for all three."""
    words = ColourWords()
    words.planted["plants"] = words.planted["green"]
    model = hues(build(Channels(), GlobalAverage(), Layout(), 3, text=words))
    for label in ("rust", "sky"):
        (tmp_path / "test" / label).mkdir(parents=True)
        for i in range(6):
            pixels = picture("moss", i, 32)
            pixels[8:24, 8:24] = picture(label, i, 16)
            Image.fromarray(pixels).save(tmp_path / "test" / label / f"{i}.png")
    found = run(model, BACKGROUND, "test", "--object", "brown, blue", "--json")
    assert found.figure["n"] == 12, (found.figure["meaning"], found.err)
    assert "Masks: MaskCLIP's on tiny, for 'brown' or 'blue' against" in found.figure["meaning"]


@cache
def hues(encoder: Encoder | None = None) -> Classifier:
    items = [Sample(f"fit {c} {i}", c, pixels=picture(c, i)) for c in LABELS for i in range(12)]
    return Linear(n_crops=0).fit(encoder or colours(), gathered(items))


def test_pictures_that_it_was_fitted_on_are_told_by_the_option(run: Any, tmp_path: Path) -> None:
    class_folders(tmp_path / "test", 4, LABELS)
    unknown = replace(hues(), known=None)
    copies = "[copies]\nat_most = 0\n"
    assert run(unknown, copies, "test", "--json").figure["state"] == "not measured"
    found = run(unknown, copies, "test", "--against", "test", "--json")
    assert (found.code, found.figure["value"]) == (1, 1.0)
    (tmp_path / "none").mkdir()
    empty = run(unknown, copies, "test", "--against", "none")
    assert (empty.code, empty.err) == (
        2, "seewhy: none must have one subfolder per class, but it has no subfolders.\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        ("", " must have at least one section"),
        ("[acuracy]\nat_least = 0.5", " has the unknown section [acuracy]."),
        ("[accuracy]\nat_least = inf", ": at_least in [accuracy] must be a number from 0 to 1, got inf."),
        ("[accuracy]\nat_least = 0.5\nat_most = 1", " must set at_least in [accuracy]"),
        ("[accuracy]\nat_least = " + "[" * 3000 + "]" * 3000, " is not valid TOML: maximum recursion depth exceeded."),
        ("[accuracy]\nat_least = 1" + "0" * 5000, " is not valid TOML: Exceeds the limit (4300 digits)"),
        (
            "[accuracy]\nat_least = 0x" + "f" * 9000,
            ": at_least in [accuracy] must be a number from 0 to 1, got a number",
        ),
        (
            "[accuracy]\nat_least = 0.5\nrequired = 0x" + "f" * 9000,
            ": required in [accuracy] must be true or false, got a number of thousands",
        ),
        (
            "[[accuracy]]\n" + ".".join("a" * 3000) + " = 1",
            " must have a section [accuracy] with at_least = 0.8, got accuracy = tables",
        ),
    ],
)
def test_a_contract_that_makes_no_sense_ends_before_anything_is_read_or_written(
    contract: str, says: str, run: Any, tmp_path: Path
) -> None:
    ended = run(hues(), contract, "nowhere", "-o", "report", "--junit", "audit.xml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"seewhy: The contract audit.toml{says}")
    assert ended.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["audit.toml"]


def test_a_contract_that_begins_with_a_byte_order_mark_is_read(run: Any, tmp_path: Path) -> None:
    class_folders(tmp_path / "test", 2, LABELS)
    assert run(hues(), "\ufeff" + ACCURACY.replace("0.5", "0.1"), "test").code == 0


def table(path: Path, **columns: str) -> Path:
    """A table of six pictures with further columns, each the same in every row."""
    pictures = class_folders(path.parent / "pictures", 2, LABELS)
    rows = [[str(p), p.parent.name, *columns.values()] for p in sorted(pictures.rglob("*.png"))]
    path.write_text("\n".join(",".join(row) for row in [["image", "label", *columns], *rows]) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--group", "camera"], "test.csv has no column 'camera' that says which pictures belong together."),
        (["--group", "site"], "Every picture must have a group, and 6 of 6 have none: "),
        (["--column", "label=other"], "None of the 1 labels ('zebra') is one of the 3 classes ("),
        (["--junit", "nowhere/audit.xml"], "nowhere/audit.xml could not be written: no such file or directory."),
        (["--junit", "pictures"], "pictures could not be written: is a directory."),
        (
            ["--junit", "report/audit.html"],
            "--junit must not be a file of the report, got report/audit.html. Use",
        ),
        (["--junit", "report/../report/audit.json", "--force"], "--junit must not be a file of the report"),
        (["--junit", "kept.txt"], "kept.txt exists, and either SeeWhy did not write it"),
        (["-o", "theirs"], "theirs/audit.html exists, and either SeeWhy did not write it"),
        (["-o", "kept.txt"], "kept.txt cannot be created, because"),
    ],
)
def test_what_cannot_be_done_ends_in_a_sentence_and_writes_nothing(
    words: list[str], says: str, run: Any, tmp_path: Path
) -> None:
    table(tmp_path / "test.csv", site="", other="zebra")
    (tmp_path / "kept.txt").write_text("mine")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "audit.html").write_text("mine")
    places = [] if "-o" in words else ["-o", "report"]
    ended = run(hues(), ACCURACY + "[group_gap]\nat_most = 0.1\nrequired = false", "test.csv", *words, *places)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"seewhy: {says}"), ended.err
    assert ended.err.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["audit.toml", "kept.txt", "pictures", "test.csv", "theirs"]
    assert (tmp_path / "kept.txt").read_text() == (tmp_path / "theirs" / "audit.html").read_text() == "mine"


def test_a_seed_that_generators_do_not_take_is_refused(run: Any, tmp_path: Path) -> None:
    class_folders(tmp_path / "test", 2, LABELS)
    calibration = "[calibration_error]\nat_most = 1\n"
    for seed, code in ((2**63 - 1, 0), (2**63, 2), (-(2**63), 0), (-(2**63) - 1, 2)):
        ended = run(hues(), calibration, "test", "--seed", seed)
        assert ended.code == code, (seed, ended.err)
        assert ("--seed" in ended.err) == (code == 2)


def test_the_junit_file_may_lie_in_the_folder_of_the_report(run: Any, tmp_path: Path) -> None:
    class_folders(tmp_path / "test", 2, LABELS)
    for more in ((), ("--force",)):
        assert run(hues(), ACCURACY, "test", "-o", "new/report", "--junit", "new/report/audit.xml", *more).code == 0
    assert sorted(os.listdir("new/report")) == ["audit.html", "audit.json", "audit.xml"]
    Path("new/report/audit.xml").write_text("mine")
    foreign = run(hues(), ACCURACY, "test", "-o", "new/report", "--junit", "new/report/audit.xml")
    assert foreign.code == 2
    assert Path("new/report/audit.xml").read_text() == "mine"


def test_a_disk_that_is_full_leaves_no_half_of_a_report(run: Any, tmp_path: Path) -> None:
    class_folders(tmp_path / "test", 2, LABELS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        ended = run(hues(), ACCURACY, "test", "-o", "report", "--junit", "audit.xml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "seewhy: report/audit.json could not be written: file too large. Choose another place to write to.\n"
    )
    assert os.listdir("report") == []
    assert not Path("audit.xml").exists()


def test_one_that_is_stopped_while_it_writes_leaves_whole_files_and_runs_again(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "test", 2, LABELS)
    places = ("-o", "report", "--junit", "audit.xml")
    rename = os.replace

    def stopped(source: Any, target: Any) -> None:
        if str(target).endswith(".html"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    assert run(hues(), ACCURACY, "test", *places).code == 130
    assert os.listdir("report") == ["audit.json"]
    assert json.loads(Path("report/audit.json").read_text("utf-8"))["n"] == 6
    monkeypatch.setattr(os, "replace", rename)
    assert run(hues(), ACCURACY, "test", *places).code == 0
    assert sorted(os.listdir("report")) == ["audit.html", "audit.json"]


def test_the_action_in_the_docs_is_yaml_whose_command_runs_and_whose_files_are_written(
    run: Any, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
    steps = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["jobs"]["audit"]["steps"]
    (command,) = [step["run"] for step in steps if str(step.get("run")).startswith("seewhy evaluate -m model/ test/ ")]
    class_folders(tmp_path / "test", 2, LABELS)
    assert run(hues(), ACCURACY, *command.split()[4:]).code == 0
    kept = steps[-1]
    assert kept["if"] == "always()"
    assert kept["with"]["path"].splitlines() == ["report/", "audit.xml"]
    assert (tmp_path / "report" / "audit.html").is_file()
    assert (tmp_path / "audit.xml").is_file()
