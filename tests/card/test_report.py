"""The evaluation report says what was measured, and that the rest was not."""

from __future__ import annotations

from typing import Any

import pytest
from test_card import Page

from seewhy.evaluation import Report


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


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("faithfulness", "Deletion and insertion were not measured."),
        ("like", "Held-out precision was not measured."),
        ("words", "Words accuracy was not measured."),
        ("fitted_on", "Evaluation on 60 held-out pictures"),
    ],
)
def test_what_was_not_measured_is_said(report: dict[str, Any], key: str, said: str) -> None:
    page = Page(Report(report | {key: None}).to_html())
    page.check()
    assert said in page.text


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
