"""A claim is judged by its whole interval, against 0 and against the paper's effect."""

from __future__ import annotations

from typing import get_args

import pytest

from seewhy.studies.claims import Interval, Verdict, judged, lead, mean_of


def test_a_lead_is_of_pairs() -> None:
    """Pictures that differ a thousandfold from one another, and by exactly 1 from method to method."""
    b = [1000.0 * i for i in range(20)]
    found = lead([x + 1 for x in b], b)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    assert mean_of([*b, *(-x for x in b)]).low < 0
    with pytest.raises(ValueError, match="must have the same length"):
        lead([1.0], b)


def test_a_difference_is_judged_by_its_whole_interval() -> None:
    ends = [(0.1, 0.3), (-0.3, -0.1), (-0.1, 0.3), (0.0, 0.3), (-0.3, 0.0)]
    found = [judged(Interval((low + high) / 2, low, high)) for low, high in ends]
    assert found == ["shown", "not shown", "too small to tell", "too small to tell", "too small to tell"]


def test_an_interval_that_ends_below_the_papers_effect_excludes_it() -> None:
    ends = [(-0.01, 0.04), (-0.01, 0.06), (0.01, 0.04), (-0.3, -0.1), (-0.01, 0.05)]
    found = [judged(Interval(0, low, high), effect=0.05) for low, high in ends]
    assert found == ["not shown", "too small to tell", "shown", "not shown", "too small to tell"]
    assert set(found) == set(get_args(Verdict))


def test_a_mean_has_its_interval_and_says_so_in_words() -> None:
    found = mean_of([0.0, 1.0] * 50)
    assert found.value == 0.5
    assert found.low < 0.42 < 0.58 < found.high
    assert str(Interval(0.5, 0.4, 0.6)) == "0.500 (0.400 to 0.600)"
    assert Interval(0.12345, 0, 1).rounded() == [0.1235, 0, 1]
