"""Trained detectors by hand: what is learnt, held out, kept and told, each beside the figure that it must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from coloured import colours, squares
from seewhy.dense.detection.fit import (
    Trial,
    best_point,
    between,
    calibrated,
    fit_detector,
    methods_for,
    on_new_pictures,
    usable,
)
from seewhy.dense.detection.linear import Axes, Linear, RegionProbe, Taught
from seewhy.dense.detection.trained import Regions, TrainedDetector
from seewhy.errors import InputError, UnknownNameError
from seewhy.metrics.average_precision import Matched
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord

SMALL: dict[str, Any] = {"n_shapes": 2, "parts": 1, "rounds": 0, "zoom": 1.0}
GREY = np.full((40, 80, 3), 90, np.uint8)


class Fixed:
    """Finds the same places in every picture: left, top, right, bottom as parts, and two scores."""

    def __init__(self, *rows: Sequence[float]) -> None:
        self.rows = torch.tensor(rows)

    def regions(self, encoder: Any, looked: Any) -> Regions:
        boxes, scores = self.rows[:, :4], self.rows[:, 4:]
        return Regions(boxes, scores, {"twice": 2 * scores})

    def tensors(self) -> dict[str, Tensor]:
        return {}


def fixed(*rows: Sequence[float], thresholds: tuple[float, ...] = (0.0, 0.0), **more: Any) -> TrainedDetector:
    return TrainedDetector("linear", {}, colours(), ("a", "b"), Fixed(*rows), thresholds, **more)


def told(detector: TrainedDetector) -> list[tuple[str, float, tuple[float, ...]]]:
    return [(d.label, round(d.score, 3), tuple(round(v, 3) for v in d.box)) for d in detector.detect(GREY).regions]


TWO = ([0.0, 0.0, 0.5, 0.5, 0.9, 0.1], [0.0, 0.0, 0.5, 0.8, 0.75, 0.2])
"""Two places that overlap by 5/8."""


@pytest.mark.parametrize("thresholds", [(0.5,), (0.5, -0.1), (0.5, 1.1)])
def test_thresholds_that_are_none_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="numbers from 0 to 1, one per class"):
        fixed(*TWO, thresholds=thresholds)


@pytest.mark.parametrize(
    "row", [[0.0, 0.0, 1.0, 1.0, 0.5], [0.0, 0.0, float("nan"), 1.0, 0.5, 0.5], [0, 0, 1, 1, 0.5, float("inf")]]
)
def test_what_finds_no_finite_places_of_its_classes_is_no_detector(row: list[float]) -> None:
    fixed(*TWO).check()
    with pytest.raises(ValueError, match="it must give 2 finite scores, one per class"):
        fixed(row).check()


def of(
    n: int, score: Callable[[int], float | None], label: str = "a", per: int = 1
) -> tuple[BoxData, list[BoxedPicture]]:
    """Pictures with ``per`` boxes each, of which the first is found with a score, where it has one."""
    there, found = [], []
    for i in range(n):
        boxes = tuple(BoxRecord((20 * k, 0, 20 * k + 9, 9), label) for k in range(per))
        there.append(BoxedPicture(f"{label}{i}.png", (40, 40), boxes))
        own = score(i)
        found.append(replace(there[-1], boxes=() if own is None else (replace(boxes[0], score=own),)))
    return BoxData(tuple(there), (label,)), found


FOLD = [i % 5 for i in range(21)]


def test_fits_that_differ_make_the_interval_wider() -> None:
    """Half of the pictures are right: every second one, or all of two folds and half of the fifth."""
    pictures = [of(40, lambda i, which=which: 0.9 - i / 100 if which(i) else None) for which in (
        lambda i: i // 5 % 2 == 0, lambda i: i % 5 < 2 or (i % 5 == 4 and i // 5 % 2 == 0),
    )]  # fmt: skip
    fold = [i % 5 for i in range(40)]
    alike, apart = (on_new_pictures(Trial.of(Linear(), *one).measured, fold) for one in pictures)
    assert apart[1] - apart[0] > 1.5 * (alike[1] - alike[0])
    assert between([(0.5, 10), (0.5, 10), (0.5, 0)]) == 0.0
    assert between([(0.9, 10)]) == 0.0


def test_the_better_out_of_fold_is_taken_and_both_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = squares(tmp_path, 6)
    tried = []

    def of_trial(how: Any, given: BoxData, found: Any) -> Any:
        tried.append(how.name)
        return replace(made(how, given, found), measured=Reached({"dito": 0.7, "linear": 0.2}[how.name]))

    made = Trial.of
    monkeypatch.setattr(Trial, "of", of_trial)
    few = {"n_steps": 2, "n_shapes": 2, "rounds": 0, "parts": 1, "zoom": 1.0}
    heard = fit_detector(data, colours(), folds=2, **few)
    assert sorted(tried) == ["dito", "linear"]
    assert heard.method == "dito"
    assert heard.parameters["n_steps"] == 2
    assert {one["name"]: one["ap50"] for one in heard.calibration["methods"]} == {"dito": 0.7, "linear": 0.2}
    with pytest.raises(UnknownNameError, match="zooom"):
        methods_for("auto", {"zooom": 2})


class Reached:
    """So much, of no class."""

    classes = ()

    def __init__(self, ap50: float) -> None:
        self.ap50 = ap50

    def per_class(self) -> Any:
        return np.zeros((1, 0, 10))


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"precision": 0.0}, {"precision": 1.0}])
def test_folds_and_precisions_out_of_range_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`folds` must be at least 2 and `precision` between 0 and 1"):
        fit_detector(squares(tmp_path, 2), colours(), **SMALL, **wrong)


def test_as_many_boxes_are_kept_as_a_picture_to_learn_from_has(tmp_path: Path) -> None:
    data = squares(tmp_path, 4)
    crowd = tuple(BoxRecord((i / 4, 0, 20 + i / 4, 20), "red") for i in range(130))
    full = BoxData(tuple(BoxedPicture(p.image, (64, 64), crowd) for p in data.pictures), ("red",))
    assert fit_detector(full, colours(), method="linear", folds=2, **SMALL).most == 130


def test_what_is_ignored_makes_no_class_known(tmp_path: Path) -> None:
    data = squares(tmp_path, 4)
    shade = BoxRecord((0, 0, 9, 9), "shade", ignored=True)
    shaded = BoxData(tuple(replace(p, boxes=(*p.boxes, shade)) for p in data.pictures), (*data.classes, "shade"))
    assert usable(shaded).classes == data.classes


def rows(scores: Sequence[float], right: Sequence[bool], n: int) -> Matched:
    there = np.ones((1, len(right)), bool)
    return Matched(np.zeros(len(scores), int), np.array(scores), np.array([right]), there, np.array([n]))


def test_ties_go_together() -> None:
    # The first of two of one score is no place to cut, though its F1 alone would do.
    tied = best_point([rows([0.5, 0.5, 0.1], [True, False, False], 1)], None)
    assert tied is not None
    assert tied.least == 0.3


def pictured(n: int, label: str, score: float, wrong: float | None = None) -> tuple[BoxedPicture, BoxedPicture]:
    """Boxes that are found, and one beside them that is not there."""
    boxes = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(n)]
    found = [BoxRecord(b, label, score) for b in boxes]
    found += [] if wrong is None else [BoxRecord((0.0, 50.0, 10.0, 60.0), label, wrong)]
    size = (200, 200)
    return BoxedPicture(label, size, tuple(BoxRecord(b, label) for b in boxes)), BoxedPicture(label, size, tuple(found))


def test_a_precision_asked_for_is_one_of_new_pictures() -> None:
    """Of forty boxes in forty pictures ten are found before the first mistake: not enough to be sure of .9."""
    pairs = [pictured(1, "a", 0.9 - i / 1000, 0.85 - i / 1000 if i >= 30 else None) for i in range(40)]
    there, found = ([replace(p, image=str(i)) for i, p in enumerate(side)] for side in zip(*pairs, strict=True))
    fold = [i % 5 for i in range(40)]
    (row,) = calibrated(there, found, fold, ("a",), 0.9)
    assert row["promised"] is True
    assert row["precision"] >= 0.9
    (row,) = calibrated(there[:10], found[:10], fold[:10], ("a",), 0.9)
    assert row["promised"] is False, "ten of ten are no promise of nine of ten"
    (row,) = calibrated(there, found, fold, ("a",))
    assert row["promised"] is None


def test_what_is_ignored_or_of_no_class_is_not_learnt() -> None:
    boxes = (
        BoxRecord((10, 5, 30, 20), "b"), BoxRecord((0, 0, 20, 40), "a", ignored=True), BoxRecord((0, 0, 9, 9), "other"),
    )  # fmt: skip
    one = Taught.of(BoxedPicture("x", (100, 50), boxes), torch.zeros(2, 5, 10), ("a", "b"))
    torch.testing.assert_close(one.boxes, torch.tensor([[0.1, 0.1, 0.3, 0.4]]))
    assert one.labels.tolist() == [1]
    torch.testing.assert_close(one.ignored, torch.tensor([[0.0, 0.0, 0.2, 0.8]]))
    torch.testing.assert_close(one.cells, torch.tensor([[1.0, 0.5, 3.0, 2.0]]))


def probe(move: float = 0.0) -> RegionProbe:
    """Two directions, one part; the first class is the first direction, and boxes move to the right."""
    weight, bias = torch.zeros(7, 6), torch.zeros(7)
    weight[0, 0] = 1.0
    weight[1, 5] = 0.5
    bias[-4] = move
    return RegionProbe(Axes(torch.zeros(2), torch.eye(2)), torch.tensor([[0.25, 0.5]]), weight, bias, 1, 0.5)


@pytest.mark.parametrize("shapes", [[[0.3, -4e6]], [[0.0, 0.5]], [[float("nan"), 0.5]], [[1.5, 0.5]], []])
def test_windows_that_are_no_parts_of_a_picture_are_refused(shapes: list[Any]) -> None:
    replace(probe(), shapes=torch.tensor([[1.0, 1.0]])).check(2)
    with pytest.raises(ValueError, match="each window shape must be above 0"):
        replace(probe(), shapes=torch.tensor(shapes).view(-1, 2)).check(2)


def test_saved_weights_of_other_numbers_are_refused() -> None:
    tensors = cast(Any, probe()).tensors()
    assert Linear(parts=1, around=0.5).restore(colours(), ("a", "b"), tensors).parts == 1
    for how, classes in ((Linear(parts=2), ("a", "b")), (Linear(parts=1), ("a",))):
        with pytest.raises(ValueError, match="`weight` must have the shape"):
            how.restore(colours(), classes, tensors)
