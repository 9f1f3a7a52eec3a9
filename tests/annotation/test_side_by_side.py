"""Net preference: the released judgements give the paper's figures; chance and certainty in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seewhy.errors import InputError
from seewhy.language.annotation.desk import swapped
from seewhy.language.annotation.records import DIMENSIONS, POINTS, check_answers
from seewhy.language.annotation.rounds import Net, net_preference

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "imageinwords.json").read_text("utf-8"))


def each_alone(rows: list[dict[str, int]], n_draws: int = 2000) -> dict[str, Net]:
    return net_preference(rows, [str(i) for i in range(len(rows))], n_draws)


@pytest.mark.parametrize("name", GOLDEN["comparisons"])
def test_released_judgements_give_the_published_figures(name: str) -> None:
    given = GOLDEN["comparisons"][name]
    columns = {d: [s for s in (2, 1, 0, -1, -2) for _ in range(given["counts"][d][2 - s])] for d in DIMENSIONS}
    rows = [dict(zip(DIMENSIONS, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    found = each_alone(rows, 50)
    for dimension, points in given["published"].items():
        assert abs(100 * found[dimension].value - points) <= given["tolerance"][dimension == "mean"], dimension
    assert all(net.low <= net.value <= net.high for net in found.values())


def test_certainty_and_chance() -> None:
    sure = each_alone([dict.fromkeys(DIMENSIONS, 2)] * 9)["mean"]
    assert (sure.value, sure.low, sure.high, sure.n) == (1, 1, 1, 9)
    even = each_alone([dict.fromkeys(DIMENSIONS, s) for s in (1, -2)] * 50)["mean"]
    assert even.value == 0
    assert even.low < -0.1
    assert even.high > 0.1
    assert each_alone([dict.fromkeys(DIMENSIONS, 0)])["mean"].value == 0


def test_judgements_of_one_picture_are_drawn_together() -> None:
    """Ten people on each of two pictures that disagree are two pictures, not twenty."""
    rows = [dict.fromkeys(DIMENSIONS, 1)] * 10 + [dict.fromkeys(DIMENSIONS, -1)] * 10
    together = net_preference(rows, ["a"] * 10 + ["b"] * 10)["mean"]
    assert (together.low, together.high) == (-1, 1)
    alone = each_alone(rows)["mean"]
    assert alone.high < 0.6


def test_left_and_right_are_even_odds_and_stay() -> None:
    sides = [swapped(f"picture {i}", "Ann", "a", "b") for i in range(400)]
    assert 150 < sum(sides) < 250
    assert swapped("k", "Ann", "a", "b") == swapped("k", "Ann", "a", "b")
    assert len({swapped("k", f"person {i}", "a", "b") for i in range(20)}) == 2


def test_answers_are_turned_back_and_checked() -> None:
    given = dict.fromkeys(DIMENSIONS, 2)
    assert check_answers(given) == given
    assert check_answers(given, turned=True) == dict.fromkeys(DIMENSIONS, -2)
    assert sorted(POINTS) == [-2, -1, 0, 1, 2]
    for wrong in ({}, {**given, "beauty": 1}, {**given, "specificity": 3}, {**given, "specificity": True}, "yes"):
        with pytest.raises(InputError, match="must"):
            check_answers(wrong)
