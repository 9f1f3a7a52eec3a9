"""Boxes judged: figures, controls, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import seewhy
from seewhy.cli import app
from seewhy.dense.evaluation import _interval, evaluate_boxes
from seewhy.errors import DataError
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord

CLASSES = ("cat", "dog", "hen")


def world(folder: Path, n: int = 8) -> BoxData:
    rng, pictures = np.random.default_rng(0), []
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (60, 60, 3), np.uint8)).save(folder / f"{i}.png")
        left, top = rng.integers(0, 30, 2).tolist()
        box = (float(left), float(top), left + 20.0, top + 20.0)
        pictures.append(BoxedPicture(str(folder / f"{i}.png"), (60, 60), (BoxRecord(box, CLASSES[i % 3]),)))
    return BoxData(tuple(pictures), CLASSES)


def scored(data: BoxData, **other: str) -> BoxData:
    pictures = tuple(
        BoxedPicture(p.image, p.size, tuple(BoxRecord(b.box, other.get(b.label, b.label), 0.9) for b in p.boxes))
        for p in data.pictures
    )
    return BoxData(pictures, tuple(other.get(c, c) for c in data.classes))


def test_a_detector_that_knows_is_above_all_controls(tmp_path: Path) -> None:
    data = world(tmp_path)
    report = evaluate_boxes(data, scored(data), novel=["hen"], n_draws=100)
    d = report.data
    assert (d["ap"], d["ap50"], d["any_name"]["ap"], d["n_found"], d["n_boxes"]) == (1, 1, 1, 8, 8)
    assert [c["name"] for c in d["controls"]] == [
        "names shuffled", "commonest class", "middle of the picture",
    ]  # fmt: skip
    assert all(c["real"] for c in d["controls"])
    shuffled = d["controls"][0]
    assert shuffled["n_draws"] == 20
    assert shuffled["ap50_best"] == pytest.approx(1 / 3)  # no drawing leaves all names, one can stay
    assert d["controls"][1]["ap50"] == pytest.approx((34 + 33 / 2 + 34 * 3 / 7) / 303, abs=1e-5)  # right: 1st, 4th, 7th
    assert [(g["name"], g["n_classes"]) for g in d["groups"]] == [("base", 2), ("novel", 1)]
    assert d["confusion"]["table"] == [[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert report.data == evaluate_boxes(data, scored(data), novel=["hen"], n_draws=100).data
    assert "AP50 is 100.0, above every control." in report.to_html()


def test_a_detector_of_wrong_names_is_not(tmp_path: Path) -> None:
    data = world(tmp_path)
    d = evaluate_boxes(data, scored(data, cat="dog", dog="hen", hen="cat"), n_draws=100).data
    assert d["ap50"] == 0
    assert d["any_name"]["ap50"] == 1
    assert not any(c["real"] for c in d["controls"])
    assert d["confusion"]["table"][0] == [0, 3, 0, 0]


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    data = world(tmp_path)
    with pytest.raises(DataError) as caught:
        evaluate_boxes(data, scored(data, cat="a", dog="b", hen="c"))
    assert str(caught.value) == (
        "The predicted boxes and the data must share class names. The data has cat, dog, hen; the predicted boxes have "
        "a, b, c."
    )
    with pytest.raises(DataError, match="Each predicted box must have a score"):
        evaluate_boxes(data, data)
    with pytest.raises(DataError, match="`novel` must be classes of the data, got 'owl'"):
        evaluate_boxes(data, scored(data), novel=["owl"])
    part = BoxData(scored(data, hen="owl").pictures[1:], ("cat", "dog", "owl"))
    d = evaluate_boxes(data, part, n_draws=10).data
    assert d["notes"] == [
        f"1 picture(s) have no detections in the file and count as without boxes: {tmp_path / '0.png'}",
        "1 detected class(es) do not occur in the data and are left out: owl",
    ]


def test_nothing_there_and_nothing_found(tmp_path: Path) -> None:
    data = world(tmp_path, 3)
    none = BoxData(tuple(BoxedPicture(p.image, p.size) for p in data.pictures), CLASSES)
    d = evaluate_boxes(data, none, n_draws=10).data
    assert (d["ap"], d["n_found"]) == (0, 0)
    report = evaluate_boxes(none, scored(data), n_draws=10)
    assert report.data["ap"] is None
    assert "These pictures have no true boxes" in report.to_html()


@pytest.mark.slow  # the shipped encoder looks at twelve small pictures
def test_the_command(tmp_path: Path) -> None:
    data = world(tmp_path, 4)
    seewhy.save_boxes(data, tmp_path / "data")
    seewhy.save_boxes(scored(data), tmp_path / "det")
    given = ["evaluate", str(tmp_path / "data"), "-q", "--json", "-o", str(tmp_path / "r.html"), "--store", "none"]
    for more in (["-m", str(tmp_path / "det")], ["--detector", "word_regions"]):
        done = CliRunner().invoke(app, [*given, *more])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        jsonschema.validate(found, seewhy.schema("evaluate-boxes"))
        assert found["report"] == str(tmp_path / "r.html")
        assert (found["ap50"] == 1) == (more[0] == "-m")


def test_an_interval_lies_about_the_figure_wherever_the_drawings_lie() -> None:
    assert _interval([0.5, 0.6, 0.7], 0.4) == pytest.approx([0.305, 0.495])
    assert _interval([0.5, float("nan"), 0.7], 0.05) == pytest.approx([0.0, 0.145])
    assert _interval([0.5, 0.7], -0.2, least=-1.0) == pytest.approx([-0.295, -0.105])
    assert _interval([float("nan")], 0.4) is None
