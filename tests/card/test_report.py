"""The evaluation report says what was measured, and that the rest was not."""

from __future__ import annotations

from typing import Any

import pytest
from test_card import Page

from seewhy.evaluation import Report

KEYS = (
    "model", "n", "accuracy", "accuracy_interval", "per_class", "calibration_error", "reliability", "confusions",
    "confusion_matrix", "trust", "faithfulness", "like", "words", "failures", "fitted_on",
)  # fmt: skip


def test_everything_measured_is_said(report: dict[str, Any]) -> None:
    page = Page(Report(report).to_html())
    page.check()
    for part in (
        "Evaluation on 60 pictures",
        "1 of these pictures is among those the classifier was fitted on, 1 byte for byte",
        "without them it is right on 84.0%",
        "The first: a.jpg (fitted on: b.jpg)",
        "85 % right",
        "between 74 % and 92 % , with 95 % confidence",
        "Deletion, low is good 0.18 random map 0.31",
        "Insertion, high is good 0.47 random map 0.24",
        "Than a random map: The maps are better than random: +0.36.",
        "Held-out precision 71 % chance 33 %",
        "The sentences alone 36 % names only 34 % random words 32 %",
        "leek asparagus 4 leek_01.jpg, leek_02.jpg",
        "broken.jpg not a picture",
        "classifier linear",
    ):
        assert part in page.text.replace("%,", "% ,")
    assert "not measured" not in page.text
    assert not page.all("script")


def test_the_weakest_class_comes_first(report: dict[str, Any]) -> None:
    text = Page(Report(report).to_html()).text
    table = text[text.index("weakest first") :]
    assert table.index("garlic") < table.index("asparagus") < table.index("leek")


def test_empty_bins_are_not_drawn(report: dict[str, Any]) -> None:
    page = Page(Report(report).to_html())
    dots = [a for a in page.all("circle") if a.get("fill") == "var(--ember)"]
    assert len(dots) == 8


def test_nothing_measured_is_said_so() -> None:
    page = Page(Report({}).to_html())
    page.check()
    for part in (
        "Accuracy not measured",
        "Deletion and insertion were not measured.",
        "Held-out precision was not measured.",
        "Words accuracy was not measured.",
        "Reliability was not measured.",
        "Confusions were not measured.",
        "Single classes were not measured.",
    ):
        assert part in page.text


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("how", ["gone", "none", "empty"])
def test_any_part_may_be_missing(report: dict[str, Any], key: str, how: str) -> None:
    if how == "gone":
        del report[key]
    else:
        report[key] = None if how == "none" or not isinstance(report[key], list | dict) else type(report[key])()
    Page(Report(report).to_html()).check()


def test_a_class_that_was_never_predicted_has_no_precision(report: dict[str, Any]) -> None:
    report["per_class"][0] |= {"precision": None, "f1": None}
    assert "leek 20 – 0.90 –" in Page(Report(report).to_html()).text


def test_too_many_classes_leave_the_confusions(report: dict[str, Any]) -> None:
    labels = [f"class {i}" for i in range(31)]
    report["confusion_matrix"] = {"labels": labels, "counts": [[0] * 31 for _ in labels]}
    page = Page(Report(report).to_html())
    assert "The table of all 31 classes would be too large to read" in page.text
    assert "leek asparagus 4" in page.text
    assert not [a for a in page.all("table") if a.get("class") == "matrix"]


def test_hostile_names_are_inert(report: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    report["confusion_matrix"]["labels"][0] = evil
    report["per_class"][0]["label"] = evil
    report["confusions"][0] |= {"true": evil, "examples": [evil]}
    report["failures"][0] = {"image": evil, "error": evil}
    report["model"] = {evil: evil}
    source = Report(report).to_html()
    assert "<script" not in source
    Page(source).check()
