"""The evaluation report says what was measured, and that the rest was not."""

from __future__ import annotations

from typing import Any

import pytest
from test_card import Page

from seewhy.evaluation import Report
from seewhy.evaluation.document import pooled_bins


def test_everything_measured_is_said(report: dict[str, Any]) -> None:
    page = Page(Report(report).to_html())
    page.check()
    for part in (
        "Evaluation on 60 pictures",
        "The classifier was fitted on 1 of these pictures (1 as the same file)",
        "on the others, its accuracy is 84.0 %",
        "The first: a.jpg (fitted on: b.jpg)",
        "85 % of 60 pictures are predicted correctly.",
        "The 95 % interval is 74 % to 92 %",
        "Deletion, low is good 0.18 random map 0.31",
        "Insertion, high is good 0.47 random map 0.24",
        "Against a random map: The maps are better than random: +0.36.",
        "Similar pictures of the class 71 % by chance 33 %",
        "Descriptions alone 36 % names alone 34 % random words 32 %",
        "leek asparagus 4 leek_01.jpg, leek_02.jpg",
        "broken.jpg not a picture",
        "classifier linear",
    ):
        assert part in page.text.replace("%,", "% ,")
    assert "not measured" not in page.text
    assert not page.all("script")


def test_the_weakest_class_comes_first(report: dict[str, Any]) -> None:
    text = Page(Report(report).to_html()).text
    table = text[text.index("lowest F1 first") :]
    assert table.index("garlic") < table.index("asparagus") < table.index("leek")


def test_the_page_leads_with_confusions_and_ends_with_what_was_not_measured(report: dict[str, Any]) -> None:
    text = Page(Report(report | {"words": None}).to_html()).text
    heads = (
        "Which classes does it confuse?",
        "Class by class",
        "When should you not trust it?",
        "In words: the classifier",
    )
    assert [text.index(head) for head in heads] == sorted(text.index(head) for head in heads)
    page = Page(Report(report | dict.fromkeys(("faithfulness", "like", "words"))).to_html())
    page.check()
    assert "Can you believe its explanations?" not in page.text


def test_calibration_is_drawn_in_points_of_ten_pictures_with_their_intervals(report: dict[str, Any]) -> None:
    rows = [
        {"confidence": c, "accuracy": a, "n": n}
        for c, a, n in ((0.3, 0.0, 2), (0.5, 0.5, 8), (0.8, 1.0, 0), (0.9, 0.75, 4))
    ]
    (one,) = pooled_bins(rows)
    assert (one["n"], round(one["confidence"], 3), one["accuracy"]) == (14, 0.586, 0.5)
    assert [round(end, 3) for end in one["interval"]] == [0.268, 0.732]  # Wilson, 7 of 14
    assert [b["n"] for b in pooled_bins([*rows, {"confidence": 0.95, "accuracy": 1.0, "n": 20}])] == [10, 24]
    page = Page(Report(report).to_html())
    dots = [a for a in page.all("circle") if a.get("fill") == "var(--ember)"]
    assert len(dots) == len(pooled_bins(report["reliability"]))
    assert len(dots) < len([row for row in report["reliability"] if row["n"]])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("faithfulness", "Not measured Where it looked: measure it with --faithfulness."),
        ("like", "Not measured What it looks like: measure it with --faithfulness, after a fit on your pictures."),
        ("words", "Not measured In words: the classifier has no descriptions; give some with --descriptions."),
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
    assert "the full table of 31 classes is in the JSON" in page.text
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
