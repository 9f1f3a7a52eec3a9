"""Forms of learning curves: found where they are known, chosen by what they predict, as doubtful as they should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from seewhy.studies.learning_curve import (
    EXPONENTS,
    FORMS,
    SPREAD,
    CurveForm,
    LogLinear,
    PowerLaw,
    Sigmoid,
    held_out_errors,
    learning_curve,
    relative,
)

N = torch.tensor([50.0, 100, 200, 400, 800, 1600, 3200]).double()
TRUE = {
    "log-linear": torch.tensor([[0.9, 0.06]]),
    "power law with floor": torch.tensor([[0.07, 4.0, 0.55]]),
    "sigmoid": torch.tensor([[0.08, 0.9, 1.2, 60.0, 0.9]]),
}
FAR = torch.tensor([6400.0, 12800]).double()


def form(name: str) -> CurveForm:
    return next(f for f in FORMS if f.name == name)


@pytest.mark.parametrize("name", TRUE)
def test_a_form_finds_its_own_curve_and_goes_on_with_it(name: str) -> None:
    own, true = form(name), TRUE[name].double()
    e = own.predict(true, N)
    found = own.fit(N, e, relative(e[0]), 0.9)
    assert torch.allclose(own.predict(found, N), e, atol=0.003)
    assert torch.allclose(own.predict(found, FAR), own.predict(true, FAR), rtol=0.06)
    assert not bool(own.failed(found).any())


@pytest.mark.parametrize("own", FORMS, ids=lambda f: f.name)
def test_many_curves_at_once_are_as_one_by_one(own: CurveForm) -> None:
    several = torch.stack([PowerLaw().predict(torch.tensor([[f, 3.0, 0.5]]).double(), N)[0] for f in (0.0, 0.1, 0.2)])
    weight = relative(several[1])
    together = own.fit(N, several, weight)
    for i in range(3):
        assert torch.allclose(together[i : i + 1], own.fit(N, several[i : i + 1], weight), rtol=0.01)


def test_a_curve_without_floor_or_gain_has_none() -> None:
    straight = (2 * N**-0.3)[None]
    assert float(PowerLaw().fit(N, straight, relative(straight[0]))[0, 0]) == pytest.approx(0, abs=1e-3)
    flat = torch.full((1, 7), 0.3).double()
    found = PowerLaw().fit(N, flat, relative(flat[0]))
    assert float(PowerLaw().predict(found, FAR)[0, -1]) == pytest.approx(0.3, abs=1e-6)
    rising = torch.linspace(0.2, 0.4, 7).double()[None]
    for own in FORMS[:2]:
        assert bool(own.failed(own.fit(N, rising, relative(rising[0]))).all())


def test_exponents_stay_in_their_bounds() -> None:
    steep = (1e-3 + 1e9 * N**-5.0)[None].clamp(max=1)
    found = PowerLaw().fit(N, steep, relative(steep[0]))
    assert EXPONENTS[0] <= float(found[0, 2]) <= EXPONENTS[1] * 1.0001


def test_the_slope_is_of_a_doubling() -> None:
    e = (0.8 - 0.05 * N.log2())[None].clamp(min=0.05)
    assert float(LogLinear().fit(N[:5], e[:, :5], torch.ones(5).double())[0, 1]) == pytest.approx(0.05)


def test_a_sigmoid_lies_between_guessing_and_its_floor() -> None:
    said = Sigmoid().predict(TRUE["sigmoid"].double(), torch.tensor([1e-3, 1.0, 1e9]).double())[0]
    assert said.tolist() == [pytest.approx(0.9, abs=1e-3), pytest.approx(float(said[1])), pytest.approx(0.08, abs=1e-3)]
    assert 0.5 < float(said[1]) < 0.9


@pytest.mark.parametrize("name", ["log-linear", "power law with floor"])
def test_the_form_is_chosen_by_what_it_foretells(name: str) -> None:
    e = form(name).predict(TRUE[name].double(), N)[0]
    draws = e * (0.005 * torch.randn(60, 7, generator=torch.Generator().manual_seed(0))).exp().double()
    curve = learning_curve(N, e, draws, top=0.95)
    assert curve.form.form.name == name
    assert curve.form.share > 0.8
    assert curve.form.off < min(f.off for f in curve.forms[1:]) / 2
    assert sum(f.share for f in curve.forms) == pytest.approx(1)


def test_held_out_sizes_are_larger_and_not_fitted_on() -> None:
    e = PowerLaw().predict(TRUE["power law with floor"].double(), N)[0]
    assert len(held_out_errors(PowerLaw(), N, e)) == 4 + 3 + 2 + 1
    assert len(held_out_errors(PowerLaw(), N[:3], e[:3])) == 0
    worse = e.clone()
    worse[-1] *= 1.5
    changed = held_out_errors(PowerLaw(), N, worse) - held_out_errors(PowerLaw(), N, e)
    assert (changed.abs() > 0.3).tolist() == [False, False, False, True, False, False, True, False, True, True]


def test_crossings_are_where_the_curve_says_and_never_where_it_has_a_floor() -> None:
    true = TRUE["power law with floor"].double()
    e = PowerLaw().predict(true, N)[0]
    sure = learning_curve(N, e, e.expand(50, -1), spread=0.0, forms=(LogLinear(), PowerLaw()))
    at = float(((0.09 - 0.07) / 4) ** (-1 / 0.55))
    by_power = sure.which == [f.form.name for f in sure.forms].index("power law with floor")
    crossing = sure.crossing(0.09, 1e6, 3000)[by_power]
    assert float(crossing.median()) == pytest.approx(at, rel=0.02)
    assert bool(sure.crossing(0.06, 1e12, 500)[by_power].isinf().all())
    assert float(sure.floors()[0].median()) == pytest.approx(0.07, abs=1e-3)


def test_doubt_grows_with_every_doubling_and_is_none_where_it_was_measured() -> None:
    e = PowerLaw().predict(TRUE["power law with floor"].double(), N)[0]
    curve = learning_curve(N, e, e.expand(800, -1), forms=(PowerLaw(),))
    spread = [float(curve.at(n.reshape(1)).log().std()) for n in (N[0], N[-1], N[-1] * 2, N[-1] * 4)]
    assert max(spread[:2]) < 1e-9
    assert spread[2] == pytest.approx(SPREAD, rel=0.15)
    assert spread[3] == pytest.approx(2 * spread[2], rel=0.01)


@pytest.fixture(scope="module")
def published() -> dict:
    """Estimators of Alabdulmohsin et al. on six of their curves, as their code gave them."""
    return json.loads((Path(__file__).parents[1] / "golden" / "scaling_laws.json").read_text("utf-8"))


def test_formulas_are_the_authors(published: dict) -> None:
    for own, name, order in (
        (Sigmoid(), "m4", ("err_inf", "err_0", "alpha", "beta", "c")),
        (PowerLaw(), "m2", ("err_inf", "beta", "c")),
    ):
        assert len(published[name]) >= 3
        for theirs in published[name].values():
            numbers = torch.tensor([[abs(theirs[n]) if n == "c" else theirs[n] for n in order]]).double()
            said = own.predict(numbers, torch.tensor([theirs["at"]]).double())
            assert float(said) == pytest.approx(theirs["predicted"], abs=2e-4)


def test_published_curves_are_foretold_about_as_well_as_the_authors_do(published: dict) -> None:
    for name, points in published["curves"].items():
        n, e = torch.tensor(points).double().T
        theirs = published["m4"][name]
        found = Sigmoid().fit(n, e[None], relative(e))
        said = float(Sigmoid().predict(found, torch.tensor([theirs["at"]]).double()))
        assert said == pytest.approx(theirs["predicted"], rel=0.1), name
