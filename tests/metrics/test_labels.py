"""Yes/no labels: scikit-learn's average precision, thresholds on fresh pictures, and no picture judging itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from torch import Tensor

from seewhy.errors import InputError
from seewhy.metrics.labels import (
    Agreement,
    Aim,
    agreement,
    average_precision,
    given_apart,
    interval_of,
    possible_from,
    threshold_for,
)

NONE, NONE_TRUE = torch.zeros(0), torch.zeros(0, dtype=torch.bool)
seeds = st.integers(0, 10**6)


def drawn(n: int, seed: int | torch.Generator, apart: float = 1.5, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Probabilities and labels of ``n`` pictures; true ones score higher by ``apart`` standard deviations."""
    draws = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    true = torch.rand(n, generator=draws) < share
    return (torch.randn(n, generator=draws) + apart * true).sigmoid(), true


def tied(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The same, with many ties, also at 0, and at least one true."""
    probability, true = drawn(n, seed)
    true[seed % n] = True
    return (probability * 10).floor() / 10, true


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), seeds)
def test_the_average_precision_of_scikit_learn(n: int, seed: int) -> None:
    scores, true = tied(n, seed)
    weights = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(seed)).double()
    weights[seed % n] = 1.0
    assert average_precision(scores, true) == pytest.approx(average_precision_score(true, scores), abs=1e-12)
    theirs = average_precision_score(true, scores, sample_weight=weights)
    assert average_precision(scores, true, weights) == pytest.approx(theirs, abs=1e-12)


def test_average_precision_of_known_rankings() -> None:
    true = torch.tensor([True, False, True, False])
    assert average_precision(torch.tensor([0.9, 0.1, 0.8, 0.2]), true) == 1
    assert average_precision(torch.tensor([0.9, 0.8, 0.7, 0.6]), true) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(torch.full((4,), 0.5), true) == 0.5  # one tie: the share of true ones
    assert math.isnan(average_precision(torch.rand(4), torch.zeros(4, dtype=torch.bool)))
    assert math.isnan(average_precision(torch.rand(4), true, (~true).double()))
    assert math.isnan(average_precision(NONE, NONE_TRUE))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), seeds)
def test_agreement_is_that_of_scikit_learn(n: int, seed: int) -> None:
    probability, true = tied(n, seed)
    mine = agreement(probability >= 0.6, true)
    theirs = precision_recall_fscore_support(true, probability >= 0.6, average="binary", zero_division=np.nan)
    assert mine[:3] == pytest.approx(theirs[:3], nan_ok=True)
    assert mine[3:] == (int((probability >= 0.6).sum()), int(true.sum()), int((true & (probability >= 0.6)).sum()))


def test_agreement_is_undefined_without_labels() -> None:
    yes, no = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    assert agreement(yes, no) == pytest.approx(Agreement(0.0, math.nan, 0.0, 3, 0, 0), nan_ok=True)
    assert agreement(no, yes) == pytest.approx(Agreement(math.nan, 0.0, 0.0, 0, 3, 0), nan_ok=True)
    assert agreement(no, no) == pytest.approx(Agreement(math.nan, math.nan, math.nan, 0, 0, 0), nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), seeds)
def test_the_best_f1_of_all_thresholds(n: int, seed: int) -> None:
    probability, true = tied(n, seed)
    threshold = threshold_for(Aim(), probability, true)
    f1_of = {t: agreement(probability >= t, true).f1 for t in probability.unique().tolist()}
    best = max(f1_of.values())
    assert agreement(probability >= threshold, true).f1 == best
    highest = max(t for t, f1 in f1_of.items() if f1 == best)
    below = max((t for t in f1_of if t < highest), default=0.0)
    assert threshold == pytest.approx((highest + below) / 2)


def test_an_f1_threshold_between_neighbouring_numbers_is_the_higher() -> None:
    low = torch.tensor(0.5)
    high = torch.nextafter(low, torch.tensor(1.0))
    probability, true = torch.stack([low, high]), torch.tensor([False, True])
    assert (probability >= threshold_for(Aim(), probability, true)).tolist() == [False, True]


def test_a_precision_counts_one_more_wrong_label() -> None:
    probability, true = torch.linspace(1, 0.1, 10), torch.tensor([True] * 9 + [False])
    assert threshold_for(Aim("precision", 0.9), probability, true) == pytest.approx(0.15)  # 9 / (9 + 1)
    assert threshold_for(Aim("precision", 0.9), probability[1:], true[1:]) == math.inf  # 8 / (8 + 1)
    assert threshold_for(Aim("precision", 0.5), probability, true) == pytest.approx(0.15)  # none is right below
    gap = torch.tensor([True, False, False, True, True, True, True, False, False, False])
    assert threshold_for(Aim("precision", 0.6), probability, gap) == pytest.approx(0.35)  # 5 / 8; 1 / 2, 1 / 3 above


@pytest.mark.parametrize(("n", "apart", "share"), [(30, 2.0, 0.1), (100, 2.0, 0.5), (500, 3.0, 0.05), (200, 0.0, 0.5)])
@pytest.mark.parametrize("least", [0.6, 0.9])
def test_the_least_precision_holds_on_fresh_pictures(n: int, apart: float, share: float, least: float) -> None:
    """On average over 300 draws; a label that is never given counts as precise."""
    draws, wrong = torch.Generator().manual_seed(0), []
    for _ in range(300):
        threshold = threshold_for(Aim("precision", least), *drawn(n, draws, apart, share))
        probability, true = drawn(2000, draws, apart, share)
        precision = agreement(probability >= threshold, true).precision
        wrong.append(0.0 if math.isnan(precision) else 1 - precision)
    error = float(np.std(wrong)) / 300**0.5
    assert np.mean(wrong) <= 1 - least + 2 * error


def test_the_least_precision_is_used_up_with_many_pictures() -> None:
    probability, true = drawn(20000, 1, 2.0)
    threshold = threshold_for(Aim("precision", 0.8), probability, true)
    probability, true = drawn(20000, 2, 2.0)
    assert agreement(probability >= threshold, true).precision == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (25, 0.9), (60, 0.95), (19, 0.5), (7, 0.75), (99, 0.99)])
def test_possible_labels_hold_their_level_on_fresh_pictures(n: int, level: float) -> None:
    """At least the level and, without ties, less than 1 / (n + 1) more, both up to the noise of 4000 draws."""
    values = torch.rand(4000, n + 1, generator=torch.Generator().manual_seed(n))
    true = torch.ones(n, dtype=torch.bool)
    inside = [float(row[n]) >= possible_from(row[:n], true, level) for row in values]
    noise = 3 * (level * (1 - level) / len(values)) ** 0.5
    assert level - noise <= np.mean(inside) <= level + 1 / (n + 1) + noise


def test_possible_labels_of_few_pictures_and_of_ties() -> None:
    probability, true = torch.linspace(0.1, 1, 10), torch.tensor([False] + [True] * 9)
    assert possible_from(probability, true, 0.9) == probability[1]  # ⌊10 · 0.1⌋ = 1, whatever 1 − 0.9 rounds to
    assert possible_from(probability, true, 0.91) == 0.0
    assert possible_from(probability, true, 0.5) == probability[5]
    assert possible_from(probability, true, 1e-12) == probability[9]
    assert possible_from(torch.full((9,), 0.3), torch.ones(9, dtype=torch.bool), 0.8) == torch.tensor(0.3)
    assert possible_from(probability, ~true, 0.9) == possible_from(NONE, NONE_TRUE, 0.9) == 0.0


def test_a_least_recall_is_that_of_possible_labels() -> None:
    probability, true = drawn(200, 3)
    threshold = threshold_for(Aim("recall", 0.8), probability, true)
    assert threshold == possible_from(probability, true, 0.8) > 0
    assert 0.8 <= agreement(probability >= threshold, true).recall <= 0.85


def test_a_label_that_nobody_has_is_never_given_or_always() -> None:
    for probability, true in ((NONE, NONE_TRUE), (torch.rand(5), torch.zeros(5, dtype=torch.bool))):
        aims = Aim(), Aim("precision", 0.1), Aim("recall", 0.9)
        assert [threshold_for(aim, probability, true) for aim in aims] == [math.inf, math.inf, 0.0]
        given = [given_apart(aim, probability, true, torch.arange(len(true))).tolist() for aim in aims]
        assert given == [[False] * len(true), [False] * len(true), [True] * len(true)]


def test_an_interval_covers_the_mean_of_groups() -> None:
    """Pictures of a group are alike; an interval over pictures would cover half as often."""
    draws, covered, over_pictures = torch.Generator().manual_seed(0), [], []
    groups = torch.arange(60).repeat_interleave(10)
    for seed in range(150):
        values = torch.rand(60, generator=draws).repeat_interleave(10).double()

        def mean(weights: Tensor, values: Tensor = values) -> float:
            return float((weights * values).sum() / weights.sum())

        for held, by in ((covered, groups), (over_pictures, torch.arange(600))):
            low, high = interval_of(mean, by, seed=seed)
            held.append(low <= 0.5 <= high)
    assert 0.9 <= np.mean(covered) <= 0.99
    assert np.mean(over_pictures) < 0.6


def test_groups_are_drawn_whole_and_by_the_seed() -> None:
    groups, seen = torch.tensor([7, 7, 3, 900, 3]), []

    def noted(weights: Tensor) -> float:
        assert weights[0] == weights[1]
        assert weights[2] == weights[4]
        assert weights[0] + weights[2] + weights[3] == 3  # as many groups as there are
        seen.append(weights.tolist())
        return float(weights[0])

    assert interval_of(noted, groups, n_draws=50) == interval_of(noted, groups, n_draws=50)
    assert len(seen) == 100
    assert seen[:50] == seen[50:]
    interval_of(noted, groups, n_draws=50, seed=1)
    assert seen[100:] != seen[:50]


def test_draws_without_a_value_are_left_out_up_to_half() -> None:
    groups = torch.arange(8)

    def often(weights: Tensor) -> float:  # NaN in 34 % of draws
        return 2.0 if weights[0] else math.nan

    def seldom(weights: Tensor) -> float:  # NaN in 66 % of draws
        return math.nan if weights[0] else 2.0

    assert interval_of(often, groups) == (2, 2)
    for nothing in (interval_of(seldom, groups), interval_of(often, groups[:1]), interval_of(often, groups[:0])):
        assert np.isnan(nothing).all()


@pytest.mark.parametrize("aim", [Aim(), Aim("precision", 0.5), Aim("recall", 0.7)], ids=str)
def test_no_picture_decides_about_its_own_fold(aim: Aim) -> None:
    probability, true = drawn(60, 5)
    folds = torch.arange(60) % 5 * 50 - 50
    before = given_apart(aim, probability, true, folds)
    changed_elsewhere = False
    for fold in folds.unique().tolist():
        mine = folds == fold
        after = given_apart(aim, probability, true ^ mine, folds)
        assert torch.equal(after[mine], before[mine])
        changed_elsewhere |= not torch.equal(after, before)
        threshold = threshold_for(aim, probability[~mine], true[~mine])
        assert torch.equal(before[mine], probability[mine] >= threshold)
    assert changed_elsewhere


def test_precision_is_not_measured_on_the_pictures_that_chose_the_threshold() -> None:
    """Where scores say nothing, the chosen threshold looks better on its own pictures than on new ones."""
    own, apart = [], []
    for seed in range(100):
        probability, true = drawn(30, seed, 0.0, 0.5)
        aim = Aim("precision", 0.6)
        own.append(agreement(probability >= threshold_for(aim, probability, true), true).precision)
        apart.append(agreement(given_apart(aim, probability, true, torch.arange(30) % 5), true).precision)
    assert np.nanmean(own) > 0.65
    assert np.nanmean(apart) < 0.55


@given(st.one_of(st.just(Aim()), st.builds(Aim, st.sampled_from(["precision", "recall"]), st.floats(1e-9, 1 - 1e-9))))
def test_an_aim_is_read_as_it_is_written(aim: Aim) -> None:
    assert Aim.parse(str(aim)) == aim


def test_the_texts_of_aims() -> None:
    assert [str(a) for a in (Aim(), Aim("precision", 0.9), Aim("recall", 0.5))] == ["f1", "precision=0.9", "recall=0.5"]
    assert Aim.parse(" recall = 0.5") == Aim("recall", 0.5)


@pytest.mark.parametrize(
    "text",
    ["", "f2", "f1=", "f1=0.5", "recall", "precision=", "recall=a", "recall=0", "recall=1", "recall=nan", "{}"],
)
def test_an_aim_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError) as error:
        Aim.parse(text)
    assert str(error.value) == (
        "The aim of the thresholds must be f1, precision=NUMBER or recall=NUMBER with a number between 0 and 1, "
        f"got {text!r}. For example: precision=0.9"
    )


@pytest.mark.parametrize(("kind", "least"), [("precision", None), ("recall", 1.0), ("f1", 0.5), ("best", None)])
def test_an_aim_that_cannot_be_made(kind: str, least: float | None) -> None:
    with pytest.raises(InputError, match=r"^The aim of the thresholds must be f1"):
        Aim(kind, least)  # type: ignore[arg-type]
