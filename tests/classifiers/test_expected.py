"""What to expect of another day: the hardest split that the pictures allow, and the range that follows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.classifiers.certainty import (
    DOWN,
    STEADY,
    UP,
    accuracy_between_halves,
    common_figures,
    expected_range,
    halves,
    held_out_lines,
    linear_fit,
    log_odds_shift,
)
from seewhy.classifiers.encoded_set import EncodedSet, HeldOut
from seewhy.encoders.stream import Encoded
from seewhy.pictures.samples import Sample, load_samples
from seewhy.progress import Progress
from seewhy.trust.groups import Grouping
from tiny import CLASSES, class_folders, colours


def shots(between: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes, each photographed on two days; the day moves features by ``between``, the class by 1."""
    draw = torch.Generator().manual_seed(seed)
    labels, day = torch.arange(80) % 2, torch.arange(80) // 2 % 2
    x = torch.rand(80, 12, generator=draw) * 0.2 + 1
    x[torch.arange(80), labels] += 1
    x[torch.arange(80), 2 + 2 * labels + day] += between
    return x, labels


def test_halves_are_the_days() -> None:
    x, labels = shots(between=3)
    mine = (labels == 0).nonzero()[:, 0]
    found = halves(x[mine])
    day = mine // 2 % 2
    assert bool((found == day).all()) or bool((found == 1 - day).all())
    assert halves(x[:3]).tolist() == [0, 1, 0]
    assert sorted(halves(torch.ones(6, 4)).unique().tolist()) == [0, 1]  # pictures that do not differ are halved too


def test_what_another_day_changes_shows_in_the_split_by_days_alone() -> None:
    """The other class on the one day lies where this class lies on the other: a fit on one day is wrong on the next."""
    x, labels = shots(between=0)
    steady = accuracy_between_halves(x, labels, 2)
    day = torch.arange(80) // 2 % 2
    swapped = torch.where(day == 0, labels, 1 - labels)
    far = torch.rand(80, 12, generator=torch.Generator().manual_seed(1)) * 0.2 + 1
    far[torch.arange(80), swapped] += 3
    far[:, 5] += 3 * day
    assert steady is not None
    assert steady > 0.95
    moved = accuracy_between_halves(far, labels, 2)
    assert moved is not None
    assert moved < 0.2


def test_one_class_cannot_be_split() -> None:
    x, labels = shots(0)
    assert accuracy_between_halves(x[:40], torch.zeros(40, dtype=torch.long), 1) is None
    assert accuracy_between_halves(x[:1], labels[:1], 2) is None


def test_the_range_holds_the_interval_and_is_bounded() -> None:
    odds = lambda p: math.log(p / (1 - p))  # noqa: E731
    low, high = expected_range((0.84, 0.97), 0.65)
    assert odds(low) == pytest.approx(odds(0.84) - DOWN)  # .65 is lower than the bound
    assert odds(high) == pytest.approx(odds(0.97) + UP)
    assert expected_range((0.84, 0.97), 0.75)[0] == 0.75
    assert expected_range((0.84, 0.97), 0.95)[0] == 0.84
    assert expected_range((0.5, 1.0), 1.0)[1] <= 1


def test_the_shift_of_odds_is_that_of_the_range() -> None:
    measures = {"held_out_interval": [0.8, 0.9], "expected_range": [0.7, 0.95]}
    down, up = log_odds_shift(measures)
    assert down == pytest.approx(math.log(4) - math.log(7 / 3))
    assert up == UP
    assert log_odds_shift({"held_out_interval": [0.8, 0.9], "expected_range": None}) == (0, 0)
    assert log_odds_shift({}) == (0, 0)


def test_the_stand_in_separates_what_can_be() -> None:
    x, labels = shots(0)
    assert bool((linear_fit(x, labels, 2)(x).argmax(1) == labels).all())


def test_fit_says_the_range_unless_groups_were_named(tmp_path: Path) -> None:
    samples = load_samples(class_folders(tmp_path, 12, CLASSES[:3]))
    measures = seewhy.fit(samples, colours(), n_crops=0).measures
    low, high = measures["expected_range"]
    assert low <= measures["held_out_interval"][0]
    assert high >= measures["held_out_interval"][1] - 1e-4
    named = [Sample(s.image, s.label, group=f"visit {i % 6}") for i, s in enumerate(samples.items)]
    grouped = seewhy.fit(type(samples)(tuple(named), samples.classes), colours(), n_crops=0)
    assert grouped.measures["expected_range"] is None
    assert grouped.measured_trust is not None
    assert grouped.measured_trust.shift == (0, 0)
    decision = grouped.predict(samples.items[0].image).decision
    assert decision is not None
    assert decision.another_day is None


def test_halves_that_are_always_wrong_give_a_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.classifiers.certainty.accuracy_between_halves", lambda *_: 0.0)
    measures = seewhy.fit(load_samples(class_folders(tmp_path, 6)), colours(), n_crops=0).measures
    low, high = measures["expected_range"]
    assert low < measures["held_out_interval"][0] < high
    assert f"expect {math.floor(low * 100)} to" in held_out_lines(measures)[0]


@pytest.mark.slow
def test_eight_fruits_do_not_know_a_jeep(grocery: Path) -> None:
    """Few classes, few pictures: photographs of other worlds are noticed, and of none is it sure."""
    others = grocery.parent / "imagenet"
    if not others.is_dir():
        pytest.skip(f"{others} is not there; set SEEWHY_TEST_DATA to the folder that holds 'grocery' and 'imagenet'")
    every = load_samples(grocery / "train")
    kept = ("Avocado", "Banana", "Kiwi", "Lemon", "Lime", "Mango", "Orange", "Plum")
    model = seewhy.fit(type(every)(tuple(s for s in every.items if s.label in kept), kept), "lite0", n_crops=0)
    found = [p.decision for p in model.predict(sorted(others.glob("*.jpg"))[::4])]
    assert len(found) > 100
    assert not any(d.verdict == "sure" for d in found)
    assert sum(d.is_unknown for d in found) >= 0.98 * len(found)
    new = load_samples(grocery / "test")
    own = model.predict([s.image for s in new.items if s.label in kept])
    assert sum(p.decision.is_unknown for p in own) <= 0.2 * len(own)


def test_pictures_in_no_series_have_a_narrow_range() -> None:
    interval = (0.65, 0.72)
    low, high = expected_range(interval, 0.3, steady=True)
    assert (round(low, 3), round(high, 3)) == (0.603, 0.758)
    assert expected_range(interval, 0.3) == pytest.approx((0.406, 0.838), abs=2e-3)


@pytest.mark.parametrize(
    ("n_groups", "by", "narrow"), [(90, "looks", True), (60, "looks", False), (90, "copies", False)]
)
def test_few_chains_among_many_pictures_are_no_series(n_groups: int, by: str, narrow: bool) -> None:
    """As many objects as three quarters of the pictures, and at least a hundred pictures."""
    n, draw = 120, torch.Generator().manual_seed(0)
    x, labels = torch.rand(n, 8, generator=draw) + 1, torch.arange(n) % 3
    groups = torch.arange(n) % n_groups
    items = [Sample(str(i), CLASSES[i % 3]) for i in range(n)]
    encoded = [Encoded(str(i), str(i), x[i : i + 1]) for i in range(n)]
    pictures = EncodedSet(items, encoded, tuple(CLASSES[:3]), labels, grouping=Grouping(groups, by))
    held = HeldOut(x, labels, torch.nn.functional.one_hot((labels + (groups % 4 == 0)) % 3, 3) * 5.0, groups)
    figures = common_figures(pictures, n, held, Progress(), torch.arange(n), 100.0)
    low, _ = figures["held_out_interval"]
    shift = math.log(low / (1 - low)) - math.log(figures["expected_range"][0] / (1 - figures["expected_range"][0]))
    assert (shift == pytest.approx(STEADY, abs=5e-3)) is narrow
