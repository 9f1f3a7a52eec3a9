"""The methods taken from Captum: equal to Captum called by hand, complete, exact on a linear model, seeded."""

from __future__ import annotations

import sys

import captum.attr
import numpy as np
import pytest
import torch
from test_perturbation import linear_model
from torch import Tensor

from seewhy.attributions import Attribution, attributions
from seewhy.attributions.gradient_shap import GradientShap
from seewhy.attributions.input_x_gradient import InputXGradient
from seewhy.attributions.integrated_gradients import IntegratedGradients
from seewhy.attributions.smooth_grad import SmoothGrad
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.errors import MissingExtraError
from seewhy.heads.head import Target
from tiny import SIDE, noise, tiny_cnn, tiny_tokens
from tiny_transformer import tiny_vit, waves

METHODS: list[Attribution] = [GradientShap(), InputXGradient(), IntegratedGradients(), SmoothGrad()]
TARGET = Target(torch.tensor([2, 0]))


@pytest.fixture(params=[tiny_cnn, tiny_tokens, tiny_vit], ids=["cnn", "tokens", "vit"])
def model(request: pytest.FixtureRequest) -> Classifier:
    return Pretrained().build(request.param())


def logits(model: Classifier, pixels: Tensor) -> Tensor:
    return model.head(model.encoder.head(model.encoder.trunk(pixels)))


def test_input_times_gradient_and_integrated_gradients_are_captums(model: Classifier) -> None:
    pixels = waves(2)
    look = model.encoder.encode(pixels)
    leaf = pixels.clone().requires_grad_()

    def network(changed: Tensor) -> Tensor:
        return logits(model, changed)

    expected = captum.attr.InputXGradient(network).attribute(leaf, target=TARGET.index).sum(1)
    torch.testing.assert_close(InputXGradient()(model, look, TARGET), expected.detach(), atol=1e-6, rtol=1e-4)
    method = captum.attr.IntegratedGradients(network)
    expected = method.attribute(leaf, 0.25, target=TARGET.index, n_steps=20).sum(1)
    found = IntegratedGradients(n_steps=20, baseline=0.25, batch_size=6)(model, look, TARGET)
    torch.testing.assert_close(found, expected.detach().float(), atol=1e-5, rtol=1e-4)


def test_smooth_grad_is_the_mean_gradient_over_seeded_noise(model: Classifier) -> None:
    pixels = waves(2)
    found = SmoothGrad(n_samples=8, batch_size=8)(model, model.encoder.encode(pixels), TARGET)
    for i in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            spread = 0.15 * (pixels[i].max() - pixels[i].min())
            noisy = torch.normal(pixels[i].expand(8, -1, -1, -1), spread.item()).requires_grad_()
        (slope,) = torch.autograd.grad(logits(model, noisy)[:, TARGET.index[i]].sum(), noisy)
        torch.testing.assert_close(found[i], slope.mean(0).sum(0), atol=1e-5, rtol=1e-4)


def test_integrated_gradients_are_complete(model: Classifier) -> None:
    pixels = noise(2)
    target = Target(torch.tensor([2, 0]), torch.tensor([1, 1]))
    found = IntegratedGradients(n_steps=200)(model, model.encoder.encode(pixels), target)
    ends = target(logits(model, pixels)) - target(logits(model, torch.zeros_like(pixels)))
    torch.testing.assert_close(found.sum((1, 2)), ends, atol=2e-3, rtol=1e-2)


def test_on_a_linear_model_all_are_the_formula() -> None:
    model, weights = linear_model()
    pixels = noise(2)
    look = model.encoder.encode(pixels)
    mine = weights[TARGET.index]
    torch.testing.assert_close(SmoothGrad(n_samples=4)(model, look, TARGET), mine.sum(1), atol=1e-5, rtol=1e-4)
    for method in (InputXGradient(), IntegratedGradients(n_steps=3)):
        torch.testing.assert_close(method(model, look, TARGET), (pixels * mine).sum(1), atol=1e-5, rtol=1e-4)
    # Black, the mean colour and white are -2, 0 and 2 in these normalised pixels.
    found = GradientShap(n_samples=64, batch_size=10)(model, look, TARGET)
    shift = ((pixels * mine).sum(1) - found) / mine.sum(1)
    assert shift.abs().max() <= 2.001
    assert shift.std() < 1e-2


def test_gradient_shap_starts_from_black_the_mean_colour_and_white_alike() -> None:
    """On a linear model a sample is ``w · (x - start)``; the starts are -2, 0 and 2 in these normalised pixels."""
    model, weights = linear_model()
    pixels, target = noise(1), Target(torch.tensor([2]))
    look, mine = model.encoder.encode(pixels), weights[2].sum(0)

    def start(method: GradientShap) -> float:
        over = (pixels[0] * weights[2]).sum(0) - method(model, look, target)[0]
        return float((over * mine).sum() / mine.square().sum())

    drawn = [start(GradientShap(n_samples=1, seed=seed)) for seed in range(12)]
    assert {round(level, 3) + 0 for level in drawn} == {-2, 0, 2}
    many = GradientShap(n_samples=300, batch_size=300)
    # Three standard errors: the starts' spread is the root of 8/3.
    assert abs(start(many)) < 3 * (8 / 3 / 300) ** 0.5


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_seed_decides_and_the_random_states_stay(method: Attribution) -> None:
    model = Pretrained().build(tiny_vit())
    look = model.encoder.encode(waves(2))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = method(model, look, TARGET)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert first.shape == (2, SIDE, SIDE)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, method(model, look, TARGET))
    if method.stochastic:
        assert not torch.equal(first, type(method)(seed=1)(model, look, TARGET))  # type: ignore[call-arg]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_function_of_the_logits_is_a_target(method: Attribution) -> None:
    model = Pretrained().build(tiny_cnn())
    look = model.encoder.encode(noise(2))
    found = method(model, look, lambda values: values[[0, 1], [2, 0]])
    assert torch.equal(found, method(model, look, TARGET))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_without_captum_the_list_stands_and_the_use_names_the_extra(
    method: Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert method.name in attributions
    model = Pretrained().build(tiny_cnn())
    with pytest.raises(MissingExtraError) as caught:
        method(model, model.encoder.encode(noise(2)), TARGET)
    assert str(caught.value) == (
        f"{method.name} needs the extra 'captum', which is not installed. Run: pip install 'seewhy[captum]'"
    )
