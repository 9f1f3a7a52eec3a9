"""Power of the reproductions' rules, against closed forms of a normal mean and of a t-test."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.stats import nct, norm, t

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("power")


def of_spread(n: int, spread: float) -> list[float]:
    """Differences of a normal's shape whose sample spread is known, and whose mean is not 0."""
    at = norm.ppf((np.arange(n) + 0.5) / n)
    return (0.3 + spread * at / at.std(ddof=1)).tolist()


@pytest.mark.parametrize(("effect", "n"), [(0.1, 8), (0.05, 8), (0.1, 3), (0.0, 8)])
def test_of_few_draws_it_is_that_of_a_t_test(script: ModuleType, effect: float, n: int) -> None:
    """Noncentral t, above the upper 2.5 % of Student's."""
    found = script.power(of_spread(n, 0.1), effect, script.over_draws, trials=20000)
    wanted = 1 - nct.cdf(t.ppf(0.975, n - 1), n - 1, effect / 0.1 * n**0.5)
    assert found.power == pytest.approx(wanted, abs=0.012)
    assert found.n == n


def test_the_smallest_effect_has_a_power_of_80_percent(script: ModuleType) -> None:
    smallest = script.power(of_spread(8, 0.1), 0.0, script.over_draws, trials=20000).smallest
    assert 1 - nct.cdf(t.ppf(0.975, 7), 7, smallest / 0.1 * 8**0.5) == pytest.approx(0.8, abs=0.012)
    assert script.power(of_spread(8, 0.1), smallest + 1e-9, script.over_draws, trials=20000).power >= 0.8


@pytest.mark.parametrize("effect", [0.0, 0.02, 0.05])
def test_of_many_pictures_it_is_that_of_a_normal_mean(script: ModuleType, effect: float) -> None:
    """``Phi(effect / se - 1.96)``; the smallest effect is ``(1.96 + 0.84) se``."""
    found = script.power(of_spread(400, 0.4), effect, script.over_pictures, trials=1000)
    error = 0.4 / 400**0.5
    assert found.power == pytest.approx(norm.cdf(effect / error - 1.96), abs=0.04)
    assert found.smallest == pytest.approx((1.96 + 0.8416) * error, rel=0.06)


def test_the_rule_over_pictures_is_that_of_a_lead(script: ModuleType) -> None:
    claims = importlib.import_module("claims")
    a = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    wanted = claims.lead(a.tolist(), [0.0] * 60).low
    assert script.over_pictures(torch.stack([a, a + 1])).tolist() == pytest.approx([wanted, wanted + 1])
    assert script.over_draws(a[None, :5])[0] == pytest.approx(script.interval(a[:5].tolist()).low)


def test_more_draws_show_more_and_what_is_enough(script: ModuleType) -> None:
    differences = of_spread(3, 0.1)
    few, many = (script.power(differences, 0.1, script.over_draws, n=n) for n in (3, 20))
    assert few.power < 0.4 < 0.9 < many.power
    assert few.smallest > 3 * many.smallest
    assert (few.enough, many.enough) == (False, True)
    assert script.power(differences, 0.1, script.over_draws).n == 3
    assert "an effect of 0.100 would be shown in" in str(few)
    assert set(few.rounded()) == {"effect", "power", "smallest"}


def test_many_are_resampled_as_they_are_and_few_are_not(script: ModuleType) -> None:
    """One in fifty differs by 1: resampled sums are whole numbers; of few, a normal's numbers are drawn."""
    seen: list[torch.Tensor] = []

    def low(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return values.mean(1)

    script.power([1.0] + [0.0] * 49, 0.0, low, trials=50)
    assert len(seen[0].unique()) == 2
    assert float(seen[0].double().mean()) == pytest.approx(0.0, abs=0.01)
    script.power([1.0] + [0.0] * 9, 0.0, low, trials=50)
    assert len(seen[1].unique()) == 500
    with pytest.raises(ValueError, match="1 differences were given"):
        script.power([0.1], 0.1, low)
