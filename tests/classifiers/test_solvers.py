"""The solvers against scikit-learn, closed forms, and bad input."""

from __future__ import annotations

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_sample_weight

from seewhy.classifiers.linear.choosing import c_path, choosing_folds
from seewhy.classifiers.linear.solvers import balanced_weight, fit_linear, fit_temperature, share_weight
from seewhy.errors import DataError, InputError

fit_logistic, fit_svm = fit_linear, partial(fit_linear, solver="svm")


def _blobs(
    n: int = 300, d: int = 20, k: int = 5, spread: float = 2.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % k
    centres = torch.randn(k, d, generator=g)
    return centres[y] + spread * torch.randn(n, d, generator=g) + 3.0, y


def _sklearn(x: torch.Tensor, y: torch.Tensor, c: float, weight: torch.Tensor | None = None) -> LogisticRegression:
    s = None if weight is None else weight.double().numpy()
    return LogisticRegression(C=c, tol=1e-9, max_iter=20_000).fit(x.double().numpy(), y.numpy(), sample_weight=s)


@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("shape", [(300, 20), (40, 90)], ids=["tall", "wide"])
@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_is_scikit_learns(c: float, shape: tuple[int, int], weighted: bool) -> None:
    x, y = _blobs(*shape)
    weight = torch.linspace(0.2, 3.0, len(y)) if weighted else None
    ours, theirs = fit_logistic(x, y, 5, c, sample_weight=weight, tol=1e-10), _sklearn(x, y, c, weight)
    assert ours.converged
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=2e-3)
    probabilities = ours.logits(x).softmax(1)
    np.testing.assert_allclose(probabilities, theirs.predict_proba(x.double().numpy()), atol=1e-3)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_logistic_objective_is_scikit_learns_at_the_default_tolerance(c: float) -> None:
    x, y = _blobs(n=400, d=30, k=8)
    theirs = _sklearn(x, y, c)
    z = theirs.decision_function(x.double().numpy())
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(z), y, reduction="sum")
    best = c * float(loss) + 0.5 * float((theirs.coef_**2).sum())
    assert fit_logistic(x, y, 8, c).loss == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("c", [0.01, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_svm_is_liblinears(c: float, weighted: bool) -> None:
    x, y = _blobs()
    weight = torch.linspace(0.2, 3.0, len(y)) if weighted else None
    theirs = LinearSVC(C=c, dual=False, tol=1e-8, max_iter=100_000)
    theirs.fit(x.double().numpy(), y.numpy(), sample_weight=None if weight is None else weight.double().numpy())
    ours = fit_svm(x, y, 5, c, sample_weight=weight, tol=1e-10)
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=3e-3)


def test_balanced_weight_is_scikit_learns() -> None:
    y = torch.tensor([0, 0, 0, 2, 2, 5])
    np.testing.assert_allclose(balanced_weight(y), compute_sample_weight("balanced", y.numpy()), rtol=1e-6)


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm])
def test_separable_samples_stay_finite(fit) -> None:
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).repeat(10, 1)
    result = fit(x, torch.arange(20) % 2, 2, 1e6)
    assert result.converged
    assert result.weight.isfinite().all()
    assert result.weight.abs().max() < 100


def test_two_points_closed_form() -> None:
    # By symmetry w = (-v, v), and the objective v^2 + 2 C log(1 + exp(-2 v)) is least where v = 2 C / (1 + exp(2 v)).
    v = float(fit_logistic(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2, tol=1e-12).weight[1, 0])
    assert v == pytest.approx(2 / (1 + math.exp(2 * v)), abs=1e-5)


def test_a_class_without_samples_is_the_least_likely() -> None:
    x, y = _blobs(k=3)
    assert (fit_logistic(x, y, 4).logits(x).softmax(1)[:, 3] < 1e-2).all()


def test_one_class_only() -> None:
    with pytest.raises(
        DataError,
        match=r"^The samples must have at least 2 classes, got 1\.",
    ):
        fit_logistic(torch.ones(3, 2), torch.zeros(3, dtype=torch.long), 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_rows_are_named(bad: float) -> None:
    x, y = _blobs()
    x[[7, 11], 0] = bad
    message = "Features must be finite, got NaN or infinity in row 7, 11. Remove these rows or encode them again."
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        fit_svm(x, y, 5)


def test_labels_out_of_range_and_bad_c() -> None:
    x, y = _blobs()
    with pytest.raises(DataError, match=r"got 0 to 4\. Number the classes from 0, or raise n_classes\."):
        fit_logistic(x, y, 4)
    with pytest.raises(InputError, match=r"C must be a positive finite number, got -1\.0"):
        fit_logistic(x, y, 5, -1.0)
    with pytest.raises(DataError, match="`sample_weight` must be"):
        fit_logistic(x, y, 5, sample_weight=-torch.ones(len(y)))


@given(st.permutations(range(60)))
@settings(max_examples=15, deadline=None)
def test_order_of_samples_does_not_matter(order: list[int]) -> None:
    x, y = _blobs(n=60, d=8, k=3)
    for fit in (fit_logistic, fit_svm):
        a, b = fit(x, y, 3, tol=1e-9), fit(x[order], y[order], 3, tol=1e-9)
        torch.testing.assert_close(a.weight, b.weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm])
def test_deterministic_and_warm_start_reaches_the_same_optimum(fit) -> None:
    x, y = _blobs()
    first, again = fit(x, y, 5, 3.0), fit(x, y, 5, 3.0)
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    warm = fit(x, y, 5, 3.0, warm_start=fit(x, y, 5, 1.0))
    assert warm.loss == pytest.approx(first.loss, rel=1e-5)
    assert fit(x, y, 5, 3.0, warm_start=first).n_iter <= 1


def test_a_weight_of_two_is_the_sample_twice() -> None:
    x, y = _blobs(n=50, d=6, k=3)
    once = fit_logistic(x, y, 3, sample_weight=torch.full((50,), 2.0), tol=1e-10)
    twice = fit_logistic(x.repeat(2, 1), y.repeat(2), 3, tol=1e-10)
    torch.testing.assert_close(once.weight, twice.weight, atol=1e-3, rtol=1e-3)


@given(a=st.floats(0.2, 3.0), right=st.integers(6, 9))
@settings(max_examples=20, deadline=None)
def test_temperature_closed_form(a: float, right: int) -> None:
    # Binary logits (a, 0), right in r of n pictures: T = a / log(q / (1 - q)) with Laplace's q = (r + 1) / (n + 2).
    y = torch.tensor([0] * right + [1] * (10 - right))
    expected = a / math.log((right + 1) / (11 - right))
    assert fit_temperature(torch.tensor([[a, 0.0]]).repeat(10, 1), y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [6, 60, 600])
def test_a_faultless_classifier_is_as_sure_as_so_many_pictures_allow(n: int) -> None:
    logits = torch.tensor([[9.0, 1.0, -500.0]]).repeat(n, 1)
    temperature = fit_temperature(logits, torch.zeros(n, dtype=torch.long))
    assert (logits[0] / temperature).softmax(0)[0] == pytest.approx((n + 1) / (n + 2), abs=1e-4)


def test_temperature_of_many_pictures_is_that_of_guo() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20000, 5, generator=generator)
    y = torch.multinomial((logits / 1.7).softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits, y) == pytest.approx(1.7, rel=0.03)


@pytest.mark.parametrize("solver", ["logistic", "svm"])
def test_c_path_chooses_what_is_better_beyond_chance(solver) -> None:
    x, y = _blobs(n=300, d=100, spread=4.0)
    grid = (1e-5, 1e-3, 1e3)
    path = c_path(x, y, 5, torch.arange(300) // 5 % 3, grid=grid, usual=1e3, solver=solver, weigh=balanced_weight)
    assert [p.c for p in path.points] == list(grid)
    best = min(path.points, key=lambda p: p.log_loss)
    more = path.points[-1].losses - best.losses
    assert best.c < 1e3
    assert float(more.mean()) > float(more.std()) / math.sqrt(300)
    assert path.best is best


@pytest.mark.parametrize("usual", [1e-2, 1.0, 100.0])
def test_c_path_keeps_the_usual_c_where_the_pictures_do_not_tell(usual: float) -> None:
    """Without any signal, one value is best by chance; before, the choice fell on it."""
    y = torch.arange(40) % 4
    x = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    grid = [10.0**e for e in range(-2, 4)]
    assert c_path(x, y, 4, torch.arange(40) // 4 % 5, grid=grid, usual=usual).best.c == usual


def test_of_two_pictures_a_class_the_log_loss_does_not_tell() -> None:
    """The fold without one of two pictures knows its class by the other alone: a strong penalty has the least loss."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(10).repeat_interleave(2)
    x = 0.7 * torch.randn(10, 50, generator=g)[y] + torch.randn(20, 50, generator=g)
    fold = (y // 2 + 5 * (torch.arange(20) % 2)) % 10 // 2
    path = c_path(
        x,
        y,
        10,
        fold,
        usual=1.0,
        grid=[10.0**e for e in range(-3, 3)],
        weigh=lambda rows: share_weight(rows, torch.full((10,), 2.0)),
    )
    best, usual = min(path.points, key=lambda p: p.log_loss), next(p for p in path.points if p.c == 1.0)
    more = usual.losses - best.losses
    assert float(more.mean()) > float(more.std()) / math.sqrt(20)
    assert path.best.c == 1.0


def test_all_folds_of_few_pictures_choose_and_enough_of_many() -> None:
    def used(n: int) -> list[int]:
        pictures = torch.arange(n).repeat_interleave(2)
        return choosing_folds(pictures % 5, pictures).unique().tolist()

    assert used(30) == used(200) == [0, 1, 2, 3, 4]
    assert used(400) == [-1, 0, 1, 2]
    assert used(5000) == [-1, 0, 1]
    validation = torch.tensor([0, 0, -1, -1])
    assert choosing_folds(validation, torch.arange(4)).tolist() == validation.tolist()


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm])
def test_a_small_c_goes_on_from_a_warm_start(fit) -> None:
    """The loss hardly changes with a small C, and the fit ended where it began."""
    x, y = _blobs(n=30, d=100, k=10)
    first = fit(x[10:], y[10:], 10, 1e-5)
    cold, warm = fit(x, y, 10, 1e-5, tol=1e-4), fit(x, y, 10, 1e-5, warm_start=first, tol=1e-4)
    np.testing.assert_allclose(warm.logits(x), cold.logits(x), atol=0.1 * float(cold.logits(x).std()))


def test_c_path_goes_on_where_features_hardly_differ() -> None:
    """A thousandth of a difference beside a length of one: the first penalties all say the same."""
    y = torch.arange(60) % 3
    x = 1 + 1e-3 * torch.eye(3)[y] + 1e-5 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    path = c_path(x, y, 3, torch.arange(60) // 3 % 5, grid=[10.0**e for e in range(-2, 7)])
    assert path.best.accuracy == 1.0
    assert path.best.c > 1e3


def test_c_path_scores_the_mean_over_versions() -> None:
    x, y = _blobs(n=90, k=3)
    groups = torch.arange(90)
    fold = torch.where(groups < 30, 0, -1)
    once = c_path(x, y, 3, fold, groups=groups, grid=(1.0,)).best
    doubled = torch.cat([x, x[:30]]), torch.cat([y, y[:30]])
    twice = c_path(*doubled, 3, torch.cat([fold, fold[:30]]), groups=torch.cat([groups, groups[:30]]), grid=(1.0,)).best
    assert twice.accuracy == once.accuracy
    assert twice.log_loss == pytest.approx(once.log_loss, rel=1e-5)


def test_c_path_refuses_a_split_picture() -> None:
    x, y = _blobs(n=4, k=2)
    with pytest.raises(
        DataError,
        match=(
            r"`fold` must have numbers from 0 without gaps, and the same number for all rows of a picture\. "
            r"`grid` must have at least one value of C\."
        ),
    ):
        c_path(x, y, 2, torch.tensor([0, 1, 0, 1]), groups=torch.tensor([0, 0, 1, 1]))


def test_of_two_pictures_a_class_one_still_speaks_for_it_when_the_other_is_held_out() -> None:
    """Each round holds out one picture of two of ten classes: the eight that are whole must not outvote them."""
    y = torch.arange(10).repeat_interleave(2)
    x = torch.nn.functional.one_hot(y, 10).float() + 0.3 * torch.randn(
        20, 10, generator=torch.Generator().manual_seed(0)
    )
    fold = (y // 2 + 5 * (torch.arange(20) % 2)) % 10
    shares = y.bincount().float()
    weighted = c_path(x, y, 10, fold, grid=(0.1,), weigh=lambda rows: share_weight(rows, shares)).best
    assert weighted.accuracy > 0.7
    assert c_path(x, y, 10, fold, grid=(0.1,)).best.accuracy < 0.2
    assert share_weight(y, shares).tolist() == [1.0] * 20
