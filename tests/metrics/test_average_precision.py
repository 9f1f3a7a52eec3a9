"""Average precision: pycocotools' numbers, exact cases, and pictures drawn anew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.metrics.average_precision import PictureBoxes, average_precision, confusion, mean, overlap_of

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "average_precision.json").read_text("utf-8"))
ONE = PictureBoxes.of([(0, 0, 10, 10), (20, 20, 40, 40)], [0, 1])
EMPTY = PictureBoxes.of([], [])


def found(*boxes: tuple[tuple[float, float, float, float], int, float]) -> PictureBoxes:
    return PictureBoxes.of([b for b, _, _ in boxes], [k for _, k, _ in boxes], [s for _, _, s in boxes])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=["all", "some ignored"])
def test_the_numbers_of_pycocotools(case: dict[str, list]) -> None:
    there = [PictureBoxes.of(p["boxes"], p["labels"], None, p["ignored"]) for p in case["there"]]
    boxes = [PictureBoxes.of(p["boxes"], p["labels"], p["scores"]) for p in case["found"]]
    measured = average_precision(there, boxes, ("a", "b", "c"))
    theirs = np.array([[np.nan if v is None else v for v in row] for row in case["per_class"]])
    np.testing.assert_allclose(measured.per_class()[0], theirs, atol=GOLDEN["tolerance"])
    assert measured.ap == pytest.approx(case["ap"], abs=GOLDEN["tolerance"])
    assert measured.ap50 == pytest.approx(case["ap50"], abs=GOLDEN["tolerance"])
    assert 0.1 < measured.ap < measured.ap50 < 1


def test_best_worst_and_between() -> None:
    right = found(((0, 0, 10, 10), 0, 0.9), ((20, 20, 40, 40), 1, 0.8))
    assert average_precision([ONE], [right], "ab").ap == 1
    assert average_precision([ONE], [EMPTY], "ab").ap == 0
    swapped = found(((0, 0, 10, 10), 1, 0.9), ((20, 20, 40, 40), 0, 0.8))
    assert average_precision([ONE], [swapped], "ab").ap == 0
    # One wrong box above the right one: precision is a half at every recall.
    half = found(((50, 50, 60, 60), 0, 0.9), ((0, 0, 10, 10), 0, 0.8), ((20, 20, 40, 40), 1, 0.1))
    assert average_precision([ONE], [half], "ab").per_class()[0, :, 0].tolist() == [0.5, 1.0]
    # Twice the same place: the second is wrong. An overlap of .6 is enough for three of ten.
    twice = found(((0, 0, 10, 6), 0, 0.9), ((0, 0, 10, 10), 0, 0.8))
    assert average_precision([ONE], [twice], "ab").per_class()[0, 0].tolist() == [1.0] * 3 + [0.5] * 7


def test_pictures_and_classes_do_not_mix_and_the_hundred_surest_count() -> None:
    """What is one picture's or one class's takes no other's place, whatever order boxes come in."""
    there = [PictureBoxes.of([(0, 0, 10, 10)], [1]), PictureBoxes.of([(0, 0, 10, 10), (0, 0, 10, 10)], [0, 1])]
    boxes = [found(((0, 0, 10, 10), 0, 0.7)), found(((0, 0, 10, 10), 1, 0.1), ((0, 0, 10, 10), 0, 0.3))]
    rare, often = average_precision(there, boxes, "ab").matched
    assert (rare.picture.tolist(), rare.score.tolist(), rare.n_there.tolist()) == ([0, 1], [0.7, 0.3], [0, 1])
    assert rare.right[0].tolist() == [False, True]
    assert (often.picture.tolist(), often.right[0].tolist(), often.n_there.tolist()) == ([1], [True], [1, 1])
    crowd = [((50.0, 50.0, 60.0, 60.0), 0, 0.5)] * 100
    assert average_precision([ONE], [found(*crowd, ((0, 0, 10, 10), 0, 0.9))], "a").ap50 == 1
    assert average_precision([ONE], [found(*crowd, ((0, 0, 10, 10), 0, 0.1))], "a").ap50 == 0


def test_a_box_takes_the_place_that_it_fits_best_and_of_equal_ones_the_last() -> None:
    there = PictureBoxes.of([(0, 0, 10, 10), (0, 0, 10, 8), (0, 2, 10, 10)], [0, 0, 0])
    first = average_precision([there], [found(((0, 0, 10, 10), 0, 0.9), ((0, 0, 10, 8), 0, 0.8))], "a").matched[0]
    assert first.right[[0, 9]].tolist() == [[True, True], [True, True]]
    # Between two equal ones: the last is gone, so that which fits the next box best.
    equal = found(((0, 1, 10, 9), 0, 0.9), ((0, 2, 10, 10), 0, 0.8))
    matched = average_precision([PictureBoxes.of([(0, 0, 10, 8), (0, 2, 10, 10)], [0, 0])], [equal], "a").matched[0]
    assert matched.right[[0, 5]].tolist() == [[True, True], [True, False]]


def test_a_class_that_is_nowhere_is_no_number() -> None:
    measured = average_precision([ONE], [EMPTY], ("a", "b", "c"))
    assert np.isnan(measured.per_class()[0, 2]).all()
    assert measured.ap == 0
    assert np.isnan(average_precision([EMPTY], [ONE], ("a", "b")).ap)


def test_ignored_places_are_neither_found_nor_missed() -> None:
    there = PictureBoxes.of([(0, 0, 10, 10), (20, 20, 40, 40)], [0, 0], None, [False, True])
    boxes = found(((22, 22, 30, 30), 0, 0.95), ((30, 30, 40, 40), 0, 0.94), ((0, 0, 10, 10), 0, 0.9))
    assert average_precision([there], [boxes], "a").ap == 1
    assert confusion([there], [boxes], 1, 0.5).tolist() == [[1, 0], [2, 0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_are_pictures_drawn_several_times(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides: list[list[PictureBoxes]] = [[], []]
    for _ in range(4):
        for side in sides:
            n = int(rng.integers(0, 4))
            corner = rng.integers(0, 8, (n, 2))
            boxes = np.concatenate([corner, corner + rng.integers(2, 8, (n, 2))], 1)
            side.append(PictureBoxes.of(boxes, rng.integers(0, 2, n), rng.random(n)))
    drawn = rng.integers(0, 4, 4)
    weights = np.bincount(drawn, minlength=4)[None].astype(float)
    weighed = average_precision(*sides, ("a", "b")).per_class(weights)[0]
    again = average_precision([sides[0][i] for i in np.sort(drawn)], [sides[1][i] for i in np.sort(drawn)], ("a", "b"))
    np.testing.assert_allclose(np.nan_to_num(weighed, nan=-1), np.nan_to_num(again.per_class()[0], nan=-1), atol=1e-9)
    once = average_precision(*sides, ("a", "b"))
    np.testing.assert_array_equal(once.per_class(np.ones((1, 4))), once.per_class())
    # Three times the same pictures is the same as once.
    np.testing.assert_allclose(once.per_class(np.full((1, 4), 3.0)), once.per_class(), atol=1e-12)


def test_drawings_are_those_of_the_seed() -> None:
    boxes = found(((0, 0, 10, 10), 0, 0.9))
    measured = average_precision([ONE, ONE, EMPTY], [boxes, EMPTY, boxes], "ab")
    first, again, other = (measured.resampled(50, s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(np.nan_to_num(first), np.nan_to_num(other))
    assert abs(mean(first[:, 0, 0]) - measured.per_class()[0, 0, 0]) < 0.15


def test_overlaps_and_confusions() -> None:
    a, b = np.array([[0, 0, 10, 10.0]]), np.array([[5, 0, 15, 10.0], [20, 20, 30, 30]])
    assert overlap_of(a[:, None], b).tolist() == [[pytest.approx(1 / 3), 0]]
    assert overlap_of(a[:, None], b, np.array([True, False])).tolist() == [[pytest.approx(1 / 2), 0]]
    boxes = found(((0, 0, 10, 9), 1, 0.9), ((0, 0, 10, 10), 0, 0.2), ((50, 50, 60, 60), 1, 0.9))
    assert confusion([ONE], [boxes], 2, 0.5).tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert confusion([ONE], [boxes], 2, 0.1).tolist() == [[1, 0, 0], [0, 0, 1], [0, 2, 0]]
