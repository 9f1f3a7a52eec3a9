"""Results as pandas tables and on matplotlib axes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

import seewhy
import tiny
from seewhy import Classifier
from seewhy.errors import DataError, InputError, UnknownNameError
from seewhy.explanation.verdict import Missing

LABELS = [label for label in tiny.CLASSES[:3] for _ in range(6)]
PICTURES = [tiny.picture(label, i % 6) for i, label in enumerate(LABELS)]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return seewhy.fit(PICTURES, LABELS, tiny.tiny_cnn(), n_crops=0)


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("Agg")


def test_predictions_are_rows_of_a_table(classifier: Classifier) -> None:
    broken = [*PICTURES[:2], b"no picture", PICTURES[8]]
    for given in (classifier.predict(broken), classifier.predict_all(broken)):
        table = pd.DataFrame(given)
        assert table["label"].tolist()[:2] == ["moss", "moss"]
        assert table["label"].tolist()[3] == "rust"
        assert table["error"].notna().tolist() == [False, False, True, False]
        assert table["probability"].isna()[2]
    one = classifier.predict(PICTURES[0])
    assert pd.DataFrame([one])["score"].tolist() == [one.score] == [one.top[0].score]
    assert pd.DataFrame([one])["probability"].tolist() == [one.probability]


def test_a_report_gives_tables_and_a_drawing(classifier: Classifier) -> None:
    report = classifier.evaluate(PICTURES, [*LABELS[:-1], "moss"], n_explained=0)
    table = report.confusion
    assert (table.index.name, table.columns.name) == ("true", "predicted")
    assert table.loc["moss", "sky"] == 1, "the picture whose label is wrong"
    assert table.to_numpy().sum() == 18
    assert report.to_frame("per_class")["label"].tolist() == ["moss", "rust", "sky"]
    assert len(report.to_frame("confusions")) == 1
    with pytest.raises(UnknownNameError, match=r"There is no table called 'per_clas'\. Did you mean 'per_class'\?"):
        report.to_frame("per_clas")
    display = report.plot()
    np.testing.assert_array_equal(display.im_.get_array(), table.to_numpy())
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["moss", "rust", "sky"]
    assert sorted(text.get_text() for text in display.ax_.texts) == sorted(map(str, table.to_numpy()[table > 0]))
    own = display.figure_.add_subplot()
    assert report.plot(ax=own).ax_ is own


def test_an_explanation_is_drawn_over_its_picture(classifier: Classifier) -> None:
    why = classifier.explain(PICTURES[0], measure=False)
    display = why.plot()
    picture, heat = display.ax_.get_images()
    np.testing.assert_array_equal(picture.get_array(), why.view)
    np.testing.assert_array_equal(heat.get_array(), why.where.heat)
    assert heat is display.im_
    assert heat.norm.vmax == -heat.norm.vmin == pytest.approx(np.abs(why.where.heat).max())
    assert display.ax_.get_title() == why.where.target
    without = seewhy.Explanation(
        why.prediction, why.view, Missing("It was left out.", ""), why.like, why.words, why.agreement
    )
    with pytest.raises(DataError, match="There is no heat map to plot: It was left out"):
        without.plot()


@pytest.mark.parametrize(("package", "call"), [("pandas", "frame_of([])"), ("matplotlib", "draw_confusion([], [])")])
def test_a_missing_package_is_named(package: str, call: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from seewhy.report.paging import frame_of; "
    code += f"from seewhy.report.plots import draw_confusion; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"needs the package {package}. Run: pip install {package}" in done.stderr


def test_labels_that_no_column_has(tmp_path: Path) -> None:
    table = pd.DataFrame({"image": ["a.png"], "kind": ["moss"]})
    with pytest.raises(InputError, match=r"Rename that column to 'label', or give labels=table\['kind'\]"):
        seewhy.fit(table, encoder=tiny.tiny_cnn())
