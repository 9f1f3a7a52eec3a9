"""Trained detectors by hand: what is learnt, held out, kept and told, each beside the figure that it must give."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from coloured import colours, squares
from seewhy.classifiers.linear.solvers import fit_logistic
from seewhy.dense.detection import fit as fitting
from seewhy.dense.detection import linear as probing
from seewhy.dense.detection.fit import Trial, dealt, fit_detector, methods_for, on_new_pictures, usable
from seewhy.dense.detection.linear import Axes, Examples, Linear, RegionProbe, Taught, common_shapes, moved, windows_of
from seewhy.dense.detection.thresholds import best_point, between, calibrated
from seewhy.dense.detection.trained import Regions, TrainedDetector
from seewhy.dense.reader import Reader
from seewhy.errors import InputError, UnknownNameError
from seewhy.metrics.average_precision import Matched
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord, save_boxes
from seewhy.progress import Progress

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
    return [(d.label, round(d.score, 3), tuple(round(v, 3) for v in d.box)) for d in detector.detect(GREY).found]


TWO = ([0.0, 0.0, 0.5, 0.5, 0.9, 0.1], [0.0, 0.0, 0.5, 0.8, 0.75, 0.2])
"""Two places that overlap by 5/8."""


def test_boxes_are_kept_from_their_classes_threshold_on_and_lie_in_the_picture() -> None:
    assert told(fixed(*TWO, thresholds=(0.8, 0.2))) == [("a", 0.9, (0, 0, 40, 20)), ("b", 0.2, (0, 0, 40, 32))]
    assert told(fixed(*TWO, thresholds=(0.9001, 1.0))) == []
    one = fixed([0.0, 0.0, 0.5, 0.5, 1.0, 0.0], thresholds=(1.0, 1.0)).detect(GREY).found
    assert [(d.score, dict(d.made_of)["twice"]) for d in one] == [(1.0, 2.0)]


def test_of_two_that_overlap_the_surer_is_kept_as_it_was_asked_for() -> None:
    detector = fixed(*TWO, thresholds=(0.3, 1.0))
    assert [score for _, score, _ in told(detector)] == [0.9]
    assert [score for _, score, _ in told(detector.keeping(overlap=0.63))] == [0.9, 0.75]
    assert [score for _, score, _ in told(replace(detector, overlap=0.63))] == [0.9, 0.75]
    assert [score for _, score, _ in told(detector.keeping(overlap=0.63, most=1))] == [0.9]
    assert detector.about()["parameters"] == {"thresholds": {"a": 0.3, "b": 1.0}, "overlap": 0.5, "most": 100}


def test_six_hundred_places_are_all_looked_through() -> None:
    rows = [[i / 600, 0.0, (i + 0.5) / 600, 1.0, 0.5 + i / 2000, 0.1] for i in range(600)]
    found = told(fixed(*rows, thresholds=(0.5, 0.5), most=1000))
    assert len(found) == 600
    assert found[0][1] == round(0.5 + 599 / 2000, 3)


@pytest.mark.parametrize("thresholds", [(0.5,), (0.5, -0.1), (0.5, 1.1)])
def test_thresholds_that_are_none_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="A number from 0 to 1 for each was expected"):
        fixed(*TWO, thresholds=thresholds)


@pytest.mark.parametrize(
    "row", [[0.0, 0.0, 1.0, 1.0, 0.5], [0.0, 0.0, float("nan"), 1.0, 0.5, 0.5], [0, 0, 1, 1, 0.5, float("inf")]]
)
def test_what_finds_no_finite_places_of_its_classes_is_no_detector(row: list[float]) -> None:
    fixed(*TWO).check()
    with pytest.raises(ValueError, match="scores for 2 classes, or none are finite"):
        fixed(row).check()


def test_it_looks_at_its_own_size_and_says_what_it_reached() -> None:
    assert fixed(*TWO, zoom=1.0).reader.zoom == 1.0
    assert fixed(*TWO).measured == "Not measured."
    figures = {"n_pictures": 7, "n_folds": 5, "fewest": 10, "ap50": 0.5, "ap50_interval": [0.4, 0.6], "controls": []}
    figures["classes"] = [{"ap50": 0.5}, {"ap50": None}]
    assert fixed(*TWO, calibration=figures).measured == (
        "Expect an AP50 of 40 to 60 on as many new pictures like the 7 that it was fitted on: each of these by a "
        "detector of the other folds, AP50 is 50.0, above every control. 1 class(es) with fewer than 10 boxes are not "
        "in it."
    )


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


def test_what_was_found_is_measured_by_what_is_there_in_classes_with_ten_boxes() -> None:
    there, found = of(12, lambda i: 0.9 - i / 100 if i < 6 else None)
    few, wrong = of(9, lambda i: 0.9, "b")
    both = BoxData((*there.pictures, *few.pictures), ("a", "b"))
    trial = Trial.of(Linear(), both, [*found, *wrong])
    assert trial.per_class == {"a": pytest.approx(0.5, abs=0.01)}
    figures = trial.figures(both, FOLD)
    assert figures["ap50"] == pytest.approx(0.5, abs=0.01)
    assert {row["name"] for row in figures["controls"]} == {"middle of the picture"}, "one class has no other names"
    alone = Trial.of(Linear(), few, wrong)
    assert alone.figures(few, FOLD) == {"ap50": None, "ap50_interval": None, "controls": []}
    assert alone.per_class == {}
    assert alone.measured.ap50 == pytest.approx(1.0), "what the better is chosen by where nothing can be said"


def test_the_interval_is_of_as_many_new_pictures_and_does_not_lean() -> None:
    """AP of drawings with pictures twice is too large; the interval lies about the figure all the same."""
    rng, inside, middle = np.random.default_rng(0), 0, []
    figures = []
    for _ in range(20):
        hit = rng.uniform(0, 1, 30) < 0.5
        there, found = of(30, lambda _: float(rng.uniform()))
        found = [
            p if right else replace(p, boxes=(replace(p.boxes[0], box=(0, 20, 9, 29)),))
            for p, right in zip(found, hit, strict=True)
        ]
        measured = Trial.of(Linear(), there, found).measured
        low, high = on_new_pictures(measured, [i % 5 for i in range(30)], 200)
        figures.append((measured.ap50, low, high))
        if low > 0:
            middle.append((low + high) / 2 - measured.ap50)
    inside = sum(low <= other[0] <= high for (_, low, high), other in pairwise(figures))
    assert inside >= 17, "of 19"
    assert abs(float(np.mean(middle))) < 0.01


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


def test_notes_name_classes_below_what_was_asked_for() -> None:
    rows = [
        {"label": "few", "own": False, "promised": None}, {"label": "poor", "own": True, "promised": False},
        {"label": "good", "own": True, "promised": True},
    ]  # fmt: skip
    first, second = fitting._notes(rows, 0.9)
    assert first.endswith("they have the threshold of all together: few")
    assert second == ("1 class(es) reach a precision of 0.9 for certain at no threshold, and have the surest: poor")
    assert len(fitting._notes([{**row, "promised": None} for row in rows], None)) == 1


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
    with pytest.raises(InputError, match="Two folds or more, and a precision above 0 and below 1, were expected"):
        fit_detector(squares(tmp_path, 2), colours(), **SMALL, **wrong)


def test_a_fit_has_the_folds_that_were_asked_for_and_learns_from_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    data = squares(tmp_path / "far" / "away", 10)
    (file,) = (f for f in save_boxes(data, tmp_path / "boxes") if f.suffix == ".json")
    text = re.sub(r'"file_name": "[^"]*?(\d+\.png)"', r'"file_name": "\1"', file.read_text())
    file.write_text(text)
    drawn = []

    def deal(given: BoxData, n: int, seed: int) -> list[int]:
        drawn.append((n, seed))
        return dealt(given, n, seed)

    monkeypatch.setattr(fitting, "dealt", deal)
    made = fit_detector(
        file, colours(), method="linear", pictures=tmp_path / "far" / "away", folds=3, precision=0.5, seed=4, **SMALL
    )
    assert drawn == [(3, 4)]
    assert made.calibration["n_pictures"] == 10
    assert made.calibration["n_folds"] == 3
    assert made.calibration["precision"] == 0.5
    assert made.zoom == 1.0
    assert made.most == 100
    assert made.looks is None, "what was seen is not kept"
    assert made.trained_on == "20 boxes of 10 pictures"
    assert len(made.pictures) == 10
    assert made.pooled().trained_on == made.trained_on


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
    assert (tied.least, tied.precision) == (0.3, 0.5)


def pictured(n: int, label: str, score: float, wrong: float | None = None) -> tuple[BoxedPicture, BoxedPicture]:
    """Boxes that are found, and one beside them that is not there."""
    boxes = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(n)]
    found = [BoxRecord(b, label, score) for b in boxes]
    found += [] if wrong is None else [BoxRecord((0.0, 50.0, 10.0, 60.0), label, wrong)]
    size = (200, 200)
    return BoxedPicture(label, size, tuple(BoxRecord(b, label) for b in boxes)), BoxedPicture(label, size, tuple(found))


def test_ten_boxes_are_enough_for_a_threshold_of_its_own() -> None:
    given = [pictured(10, "ten", 0.8), pictured(9, "nine", 0.6), pictured(1, "one", 0.2, 0.9)]
    ten, nine, one = calibrated([g for g, _ in given], [f for _, f in given], [0, 1, 2], ("ten", "nine", "one"))
    assert (ten["own"], ten["threshold"]) == (True, 0.4)
    assert (nine["own"], one["own"]) == (False, False)
    # All together: .9 wrong, ten of .8, nine of .6, one of .2; all of them are best.
    assert nine["threshold"] == one["threshold"] == 0.1


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


def test_where_nothing_right_was_found_the_threshold_is_a_half() -> None:
    there, _ = pictured(16, "a", 0.9)
    (row,) = calibrated([there], [BoxedPicture("a", (200, 200), ())], [0], ("a",))
    assert (row["threshold"], row["own"], row["precision"], row["recall"]) == (0.5, False, None, None)


def test_axes_have_a_spread_of_one_and_no_direction_of_noise() -> None:
    two = torch.randn(2, 400, generator=torch.Generator().manual_seed(0)).double()
    cells = (torch.tensor([[3.0, 0.0], [0.0, 0.5], [3.0, 0.5]]).double() @ two + 7).float()
    axes = Axes.of([cells[:, :100].reshape(3, 10, 10), cells[:, 100:].reshape(3, 10, 30)], 9)
    assert len(axes.components) == 2
    seen = axes.of_map(cells.reshape(3, 20, 20)).flatten(1).double()
    torch.testing.assert_close(seen.mean(1), torch.zeros(2).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen @ seen.T / 400, torch.eye(2).double(), atol=1e-3, rtol=0)
    assert len(Axes.of([cells.reshape(3, 20, 20)], 1).components) == 1


def test_what_is_ignored_or_of_no_class_is_not_learnt() -> None:
    boxes = (
        BoxRecord((10, 5, 30, 20), "b"), BoxRecord((0, 0, 20, 40), "a", ignored=True), BoxRecord((0, 0, 9, 9), "other"),
    )  # fmt: skip
    one = Taught.of(BoxedPicture("x", (100, 50), boxes), torch.zeros(2, 5, 10), {"a": 0, "b": 1})
    torch.testing.assert_close(one.boxes, torch.tensor([[0.1, 0.1, 0.3, 0.4]]))
    assert one.labels.tolist() == [1]
    torch.testing.assert_close(one.ignored, torch.tensor([[0.0, 0.0, 0.2, 0.8]]))
    torch.testing.assert_close(one.cells, torch.tensor([[1.0, 0.5, 3.0, 2.0]]))


def test_shapes_are_means_of_logarithms_and_a_whole_picture_has_one_place() -> None:
    sizes = torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.8, 0.5], [0.9, 0.5]])
    shapes = common_shapes(sizes, 2, 0)
    expected = torch.tensor([[0.02**0.5, 0.02**0.5], [0.72**0.5, 0.5]])
    torch.testing.assert_close(shapes[shapes[:, 0].argsort()], expected)
    assert windows_of(torch.tensor([[1.0, 1.0]]), (5, 8)).tolist() == [[0, 0, 8, 5]]
    back = moved(torch.tensor([[4.0, 4.0, 6.0, 6.0]]), torch.tensor([[-9.0, 0.0, 0.0, -9.0]]))
    half = float(np.exp(-1))
    torch.testing.assert_close(back, torch.tensor([[2.0, 5 - half, 4.0, 5 + half]]))


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
    with pytest.raises(ValueError, match="the shapes of its windows are no parts of a picture"):
        replace(probe(), shapes=torch.tensor(shapes).view(-1, 2)).check(2)


def test_boxes_are_moved_and_then_scored_where_they_are() -> None:
    grid = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    windows, first, _ = probe(0.5).scan(grid)
    places, scores, _ = probe(0.5).moved(grid)
    wanted = windows + torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert len(places) == len(windows)
    order = first[:, :3].softmax(1)[:, :2].amax(1).argsort(descending=True)
    torch.testing.assert_close(places, wanted[order].clamp(max=8))
    outputs = probe(0.5).features(grid, places) @ probe().weight.T
    torch.testing.assert_close(scores, outputs[:, :3].softmax(1)[:, :2], atol=1e-5, rtol=1e-4)
    kept, sure, _ = probe(1.0).moved(grid)
    assert len(kept) < len(windows), "what left the picture is gone"
    assert sure.isfinite().all()


def test_a_region_ends_with_the_logarithms_of_its_sides() -> None:
    grid = torch.zeros(2, 4, 8)
    found = probe().features(grid, torch.tensor([[0.0, 0.0, 4.0, 1.0]]))
    torch.testing.assert_close(found[0, -2:], torch.tensor([0.5, 0.25]).log())


def test_a_fit_is_a_logistic_and_a_ridge_regression_on_features_of_one_spread() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=draw) * torch.tensor([1.0, 5.0, 0.1, 2.0, 1.0, 3.0]) + 2
    label = torch.arange(60) % 3 - 1
    by = torch.randn(60, 4, generator=draw) + x[:, :4]
    how = Linear(parts=1, c=0.3)
    made, fit = how._fitted(probe(), [Examples(x[:20], label[:20], by[:20]), Examples(x[20:], label[20:], by[20:])], 2)
    spread = x.std(0)
    y = torch.where(label < 0, 2, label)
    classes = fit_logistic(x / spread, y, 3, 0.3, tol=1e-3)
    near = label >= 0
    ridge = Ridge(alpha=1.0).fit((x[near] / spread).double().numpy(), by[near].double().numpy())
    outputs = x @ made.weight.T + made.bias
    torch.testing.assert_close(outputs[:, :3], x / spread @ classes.weight.T + classes.bias, atol=1e-3, rtol=1e-3)
    moves = torch.from_numpy(ridge.predict((x / spread).double().numpy())).float()
    torch.testing.assert_close(outputs[:, 3:], moves, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(fit.spread, spread)
    # Later rounds keep the spread, as what was learnt is gone on from.
    again, later = how._fitted(probe(), [Examples(3 * x, label, by)], 2, fit)
    torch.testing.assert_close(later.spread, spread)
    assert again.weight.isfinite().all()


def test_all_pictures_are_learnt_from_on_the_axes_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = squares(tmp_path, 7)
    monkeypatch.setattr(probing, "FIRST", 3)
    of = []

    def axes(maps: list[Tensor], width: int) -> Axes:
        of.append(len(maps))
        return Axes(torch.zeros(3), torch.eye(3))

    monkeypatch.setattr(Axes, "of", axes)
    maps, _ = Linear(**SMALL)._maps(Reader(colours(), 1.0), data, Progress())
    assert of == [3]
    assert len(maps) == 7
    grids = torch.stack([one.grid for one in maps]).flatten(1)
    assert len(grids.unique(dim=0)) == 7


def test_examples_grow_by_what_was_wrong_and_are_no_more_than_fit_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, fitted = squares(tmp_path, 3), list[tuple[int, float]]()
    monkeypatch.setattr(probing, "MOST_ROWS", 150)

    def fit(x: Tensor, *given: Any, **how: Any) -> Any:
        fitted.append((len(x), given[2]))
        return fit_logistic(x, *given, **how)

    monkeypatch.setattr(probing, "fit_logistic", fit)
    Linear(**{**SMALL, "rounds": 2, "c": 0.02}).fit(Reader(colours(), 1.0), data)
    assert [c for _, c in fitted] == [0.02] * 3
    (first, _), (second, _), (third, _) = fitted
    # In each of three pictures ten of things, of nothing and beside things at most, and ten wrong ones a round.
    assert first <= 90
    assert first < second < third <= 150


@pytest.mark.parametrize("wrong", [{"around": 0.0}, {"c": 0.0}, {"parts": 0}, {"width": 0}, {"n_shapes": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"was expected\. Change it"):
        Linear(**wrong)


def test_saved_weights_of_other_numbers_are_refused() -> None:
    tensors = cast(Any, probe()).tensors()
    assert Linear(parts=1, around=0.5).restore(colours(), ("a", "b"), tensors).parts == 1
    for how, classes in ((Linear(parts=2), ("a", "b")), (Linear(parts=1), ("a",))):
        with pytest.raises(ValueError, match="its weights are"):
            how.restore(colours(), classes, tensors)
