"""What next: which classes are listed and why, and what the page is told of more pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seewhy.progress import Progress
from seewhy.studies.inspection.faults import HeldOutScores
from seewhy.studies.scaling import ScalingStudy
from seewhy.studies.what_next import MOST_WRONG, reasons, sentence, weak_classes, what_next
from tiny import tiny_cnn

CLASSES = ("ash", "birch", "cedar", "date")
SCALING = ScalingStudy(n_sizes=3, n_seeds=2, n_draws=200)


def scores(labels: list[int], said: list[int], judged: list[bool] | None = None, n_classes: int = 4) -> HeldOutScores:
    """As if each picture were predicted so; the surer, the later it stands."""
    sure = torch.linspace(0.5, 0.9, len(labels)).double()
    p = torch.full((len(labels), n_classes), 0.01).double()
    p[torch.arange(len(labels)), torch.tensor(said)] = sure
    flags = torch.tensor(judged or [True] * len(labels))
    return HeldOutScores(p, torch.tensor(labels), torch.zeros(len(labels), 1), torch.arange(len(labels)), flags)


def test_the_classes_recognised_worst_come_first_with_what_they_are_taken_for() -> None:
    labels = [0] * 6 + [1] * 6 + [2] * 6
    said = [0] * 6 + [1, 0, 0, 2, 1, 1] + [2, 0, 1, 1, 0, 1]
    rows = weak_classes(scores(labels, said), CLASSES, 10)
    assert [(r["label"], r["right"], r["tested"]) for r in rows] == [("cedar", 1, 6), ("birch", 3, 6)]
    assert (rows[0]["taken_for"], rows[0]["n_taken"]) == ("birch", 3)
    assert rows[0]["reasons"] == ["1 of 6 held-out pictures are predicted correctly.", "3 are predicted as birch."]
    assert [r["label"] for r in weak_classes(scores(labels, said), CLASSES, 1)] == ["cedar"]


def test_a_class_with_few_pictures_says_so_and_counts_for_less_in_the_order() -> None:
    labels = [0] * 10 + [1] * 10 + [2]
    said = [0] * 10 + [1] + [0] * 9 + [0]
    rows = weak_classes(scores(labels, said), CLASSES, 10)
    assert [r["label"] for r in rows] == ["birch", "cedar"], "one of ten is worse than none of one"
    assert [r["few"] for r in rows] == [False, True]
    three = weak_classes(scores([0] * 10 + [1] * 10 + [2] * 3, [0] * 10 + [1] * 10 + [0] * 3), CLASSES, 10)
    assert three[0]["reasons"][-1] == "This class has 3 pictures; half of the classes have 10 or more."
    five = weak_classes(scores([0] * 10 + [1] * 10 + [2] * 5, [0] * 10 + [1] * 10 + [0] * 5), CLASSES, 10)
    assert not five[0]["few"], "half of the median is not few"


def test_a_class_that_cannot_be_tested_is_listed_and_says_why() -> None:
    labels, said = [0] * 4 + [1] * 3 + [2], [0] * 4 + [1] * 3 + [2]
    rows = weak_classes(scores(labels, said, [True] * 4 + [False] * 4), CLASSES, 10)
    told = {r["label"]: r["reasons"][0] for r in rows}
    assert told == {
        "birch": "Its 3 pictures look like one object, so its accuracy is unknown.",
        "cedar": "This class has one picture, so its accuracy is unknown.",
    }
    assert all(r["taken_for"] is None and r["wrong"] == [] for r in rows)
    assert all("are predicted as" not in " ".join(r["reasons"]) for r in rows)


def test_the_pictures_that_the_label_fits_least_come_first() -> None:
    n = MOST_WRONG + 6
    p = torch.full((n + 4, 2), 0.1).double()
    p[:n, 1], p[n:, 0] = 0.8, 0.9
    p[:n, 0] = torch.linspace(0.3, 0.1, n)
    labels = torch.zeros(n + 4, dtype=torch.long)
    found = HeldOutScores(p, labels, torch.zeros(n + 4, 1), torch.arange(n + 4), torch.ones(n + 4, dtype=torch.bool))
    assert weak_classes(found, ("a", "b"), 5) == [], "no class is worse than all together"
    labels[n:] = 1
    p[n:, 1] = 1.0
    (row,) = weak_classes(found, ("a", "b"), 5)
    assert row["wrong"] == list(range(n - 1, n - 1 - MOST_WRONG, -1))


def test_one_picture_is_taken_for_another_class() -> None:
    row = {"n": 8, "tested": 8, "right": 7, "n_taken": 1, "taken_for": "ash", "few": False, "median": 8.0}
    assert reasons(row) == ["7 of 8 held-out pictures are predicted correctly.", "1 is predicted as ash."]


@pytest.mark.parametrize(("low", "said"), [(0.02, "More pictures would help. "), (0.0, "More pictures may not help. ")])
def test_the_sentence_says_whether_doubling_helped_so_far(low: float, said: str) -> None:
    data = {
        "doubling": {"value": 0.03, "interval_90": [low, 0.05]},
        "predictions": [{"times": 2, "accuracy": 0.8, "interval_90": [0.78, 0.83]}], "accuracy": 0.77,
    }  # fmt: skip
    told = sentence(data)
    assert told.startswith(said)
    assert f"changed accuracy by +3.0 points ({100 * low:+.1f} to +5.0; 90 % interval)" in told
    assert told.endswith("With twice as many pictures, expect an accuracy of 78 to 83 %; now it is 77 %.")


def cloud(n: int, k: int, spread: float) -> tuple[Tensor, list[str], list[str]]:
    draws = torch.Generator().manual_seed(0)
    centres = torch.randn(k, 12, generator=draws)
    labels = torch.arange(n * k) % k
    pooled = centres[labels] + spread * torch.randn(n * k, 12, generator=draws)
    return pooled, [CLASSES[i] for i in labels.tolist()], [f"{i:016x}" for i in range(n * k)]


def test_more_is_what_the_study_scaling_answers_and_small_classes_are_left_out() -> None:
    pooled, labels, keys = cloud(30, 3, 1.2)
    labels[:2] = ["date", "date"]
    labels[3:] = ["ash" if one == "date" else one for one in labels[3:]]
    found = what_next(tiny_cnn(), pooled, labels, keys, Progress(), SCALING)
    assert (found["n"], found["n_classes"]) == (90, 4)
    more = found["more"]
    assert more["left_out"] == ["date"]
    assert more["n"] == 88
    assert more["learnt_from"] + more["n_test"] == 88
    assert [one["times"] for one in more["predictions"]] == [2, 4]
    assert 0.4 < more["accuracy"] <= 1
    low, high = more["predictions"][0]["interval_90"]
    assert low <= more["predictions"][0]["accuracy"] <= high
    assert found == what_next(tiny_cnn(), pooled, labels, keys, scaling=SCALING), "the same again"


def test_copies_are_held_out_together() -> None:
    pooled, labels, keys = cloud(12, 2, 0.3)
    labels[0], labels[2] = "cedar", "cedar"
    keys[2], pooled[2] = keys[0], pooled[0]
    found = what_next(tiny_cnn(), pooled, labels, keys, scaling=SCALING)
    (cedar,) = [row for row in found["classes"] if row["label"] == "cedar"]
    assert cedar["tested"] == 0, "both pictures of it are one"


def test_no_loss_is_predicted_where_every_held_out_picture_is_right() -> None:
    labels = [CLASSES[i % 3] for i in range(24)]
    pooled = torch.eye(3, 12)[torch.arange(24) % 3] + 0.01 * torch.rand(24, 12)
    data = what_next(tiny_cnn(), pooled, labels, [str(i) for i in range(24)], Progress())
    assert data["more"]["missing"].startswith("The gain from more pictures cannot be predicted, because the learning")
    assert "100 % of" in data["more"]["missing"]
