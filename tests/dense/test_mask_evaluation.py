"""Mean intersection over union, its controls, and a probe of cells: by hand, and on planted pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from coloured import NAMES, colours, masked
from schemas import check
from seewhy.cli import app
from seewhy.dense.evaluation import ALWAYS, GRID, OWN, PROBE, RANDOM, SHUFFLED, evaluate_segmenter
from seewhy.dense.finders import Segmenter
from seewhy.dense.linear import Linear, shares_of
from seewhy.dense.maskclip import MaskCLIP
from seewhy.dense.miou import accuracy, ceiling, commonest, mean_iou, per_class, pixel_confusion, shuffled, sums
from seewhy.dense.saving import is_segmenter, load_segmenter, save_segmenter
from seewhy.errors import DataError, InputError, ModelError
from seewhy.pictures.pixel_classes import load_masks
from seewhy.progress import Progress


def test_intersections_and_unions_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    found = np.array([[0, 1, 1], [255, 2, 0]], np.uint8)
    table = pixel_confusion(truth, found, 4)[None]
    assert table[0].tolist() == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    # 1/2, 1/3 and 1; the class without a pixel does not count.
    assert float(mean_iou(sums(table))[0]) == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert accuracy(table) == pytest.approx(3 / 5)
    rows = per_class(table, ["a", "b", "c", "d"], 0)
    assert [r["iou"] for r in rows] == pytest.approx([1 / 2, 1 / 3, 1, None])
    assert rows[3]["interval"] is None
    assert [r["share"] for r in rows] == pytest.approx([0.4, 0.4, 0.2, 0])
    assert rows[0]["n_pictures"] == 1


def test_perfect_worst_and_shuffled() -> None:
    truth = np.repeat(np.arange(4, dtype=np.uint8), 5)
    table = pixel_confusion(truth, truth, 4)[None]
    assert float(mean_iou(sums(table))) == 1
    assert all(float(mean_iou(sums(one))) == 0 for one in shuffled(table, 0))
    assert len({tuple(one.flatten().tolist()) for one in shuffled(table, 0)}) > 4
    always = commonest(pixel_confusion(np.array([0, 1, 1]), np.array([0, 0, 0]), 2)[None])
    assert always[0].tolist() == [[0, 1, 0], [0, 2, 0]]


def test_the_ceiling_of_a_grid() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 4:] = 1
    assert np.array_equal(ceiling(truth, 2, (2, 2), (8, 8)), truth)
    truth[3, 3] = 2  # smaller than a cell: never the best of one
    assert 2 not in ceiling(truth, 3, (2, 2), (8, 8))
    assert shares_of(truth, 3, (2, 2))[0, 0].tolist() == [15 / 16, 0, 1 / 16]
    truth[0, 0] = 255
    assert shares_of(truth, 3, (2, 2))[0, 0].sum() == 15 / 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked(tmp_path_factory.mktemp("masks") / "train", noise=20)


def rows_of(report: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in report.data["rows"]}


def test_a_planted_segmenter_beats_every_control(data: Path) -> None:
    given = load_masks(data)
    report = evaluate_segmenter(MaskCLIP().build(colours(), NAMES), given, train=given)
    check("masks", [report.data])
    rows = rows_of(report)
    assert list(rows) == [OWN, SHUFFLED, RANDOM, ALWAYS, PROBE, GRID]
    assert report.data["miou"] == rows[OWN]["miou"] > 0.85
    controls = [row for row in rows.values() if row["control"]]
    assert len(controls) == 3
    assert all(row["miou"] < 0.7 and row["real"] for row in controls)
    assert rows[SHUFFLED]["miou"] < 0.1
    assert "best of 20 draws" in rows[SHUFFLED]["what"]
    assert rows[ALWAYS]["miou"] == pytest.approx(max(c["share"] for c in report.data["classes"]) / 3, abs=0.02)
    assert rows[PROBE]["miou"] > 0.85
    assert rows[GRID]["miou"] > 0.95
    low, high = report.data["interval"]
    assert low <= report.data["miou"] <= high
    page = report.to_html()
    assert "above every control" in page
    assert "names shuffled" in page
    wrong = evaluate_segmenter(MaskCLIP().build(colours("green blue red"), NAMES), given)
    assert PROBE not in rows_of(wrong)
    assert "not shown to be above" in wrong.to_html()


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = masked(tmp_path / "some", 4)
    Image.new("L", (9, 9)).save(root / "labels" / "1.png")
    (root / "images" / "2.png").write_bytes(b"\x89PNG")
    mask = np.asarray(Image.open(root / "labels" / "0.png")).copy()
    mask[:2] = 77
    Image.fromarray(mask).save(root / "labels" / "0.png")
    (root / "classes.txt").write_text("red\ngreen\nblue\nviolet\n")
    progress = Progress()
    segmenter = MaskCLIP().build(colours(), [*NAMES, "violet"])
    report = evaluate_segmenter(segmenter, load_masks(root), progress=progress)
    assert report.data["n"] == 2
    assert [Path(f["image"]).name for f in report.data["failures"]] == ["1.png", "2.png"]
    assert report.data["notes"] == [
        "1 value(s) of the masks have no name and are not counted: 77 (2.1 % of the pixels)",
        "1 class(es) without a pixel in these masks are left out: violet",
    ]
    assert [c["iou"] is None for c in report.data["classes"]] == [False, False, False, True]
    for name in ("0", "3"):
        (root / "images" / f"{name}.png").write_bytes(b"")
    with pytest.raises(DataError, match="None of the 4 pictures could be read together with its mask"):
        evaluate_segmenter(segmenter, load_masks(root))


def test_other_classes_are_refused(data: Path) -> None:
    with pytest.raises(InputError) as caught:
        evaluate_segmenter(MaskCLIP().build(colours(), ["red", "green", "violet"]), load_masks(data))
    assert "Only the masks have 'blue', and only the segmenter has 'violet'." in str(caught.value)
    # The order is no matter.
    same = evaluate_segmenter(MaskCLIP().build(colours(), ["blue", "red", "green"]), load_masks(data))
    assert same.data["miou"] > 0.85


def test_a_probe_is_kept_and_comes_back(data: Path, tmp_path: Path) -> None:
    fitted = Linear().fit(colours(), load_masks(data))
    assert fitted.trained_on == "1536 cells of 6 pictures with masks"
    picture = next((data / "images").iterdir())
    folder = save_segmenter(fitted, tmp_path / "seg")
    assert is_segmenter(folder)
    again = load_segmenter(folder, encoder=colours())
    assert isinstance(again, Segmenter)
    assert (again.method, again.classes, again.trained_on) == ("linear", NAMES, fitted.trained_on)
    assert np.array_equal(again.segment(picture).mask, fitted.segment(picture).mask)
    words = MaskCLIP(centred=0.0).build(colours(), NAMES)
    back = load_segmenter(save_segmenter(words, tmp_path / "words"), encoder=colours())
    assert back.parameters == words.parameters
    assert np.array_equal(back.segment(picture).scores, words.segment(picture).scores)


@pytest.mark.parametrize(
    "change",
    [{"classes": ["a", "b"]}, {"method": "nothing"}, {"parameters": {"zoom": "x"}}, {"parameters": {"x": 1}},
     {"format": 9}, {"encoder": 3}],
)  # fmt: skip
def test_a_card_that_somebody_changed_is_told(data: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = save_segmenter(Linear().fit(colours(), load_masks(data)), tmp_path / "seg")
    card = json.loads((folder / "segmenter.json").read_text("utf-8"))
    (folder / "segmenter.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(ModelError):
        load_segmenter(folder, encoder=colours())


def test_too_little_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"are needed for training, got 1 picture\(s\) with 3 class\(es\)"):
        Linear().fit(colours(), load_masks(masked(tmp_path / "one", 1)))
    with pytest.raises(InputError, match="`held_out` of linear must be"):
        Linear(held_out=1.0)


def test_from_the_command_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.encoders.find

    monkeypatch.setattr(seewhy.encoders.find, "encoder", lambda name, engine: colours())
    monkeypatch.setattr(seewhy.encoders.find, "encoder", lambda name, engine: colours())
    words = ["evaluate", str(data), "--store", "none", "--quiet"]
    done = CliRunner().invoke(app, [*words, "--json", "-o", str(tmp_path / "report.html")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n"] == 6
    assert "above every control" in (tmp_path / "report.html").read_text("utf-8")
    seg = save_segmenter(Linear().fit(colours(), load_masks(data)), tmp_path / "seg")
    done = CliRunner().invoke(app, [*words, "-m", str(seg), "--encoder", "tiny", "--labels", "red, green, blue"])
    assert done.exit_code == 0, done.output
    assert "always the commonest" in done.stdout
    assert RANDOM not in done.stdout
    done = CliRunner().invoke(app, ["segment", str(data / "images" / "0.png"), "-m", str(seg), "--encoder", "tiny"])
    assert done.exit_code == 0, done.output
    both = CliRunner().invoke(app, ["segment", "a.png", "-m", str(seg), "--labels", "a,b"])
    assert str(both.exception) == (
        "--model and --labels cannot be combined, because a saved segmenter has its own classes. Use only one of them."
    )
