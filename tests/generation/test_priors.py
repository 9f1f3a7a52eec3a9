"""Priors of codes beside densities whose score is known: a normal distribution, a mixture of two, a learnt one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seewhy.encoders.diffusion import schedule
from seewhy.errors import ModelError
from seewhy.generation.priors import Autoencoder, Denoise, Score, autoencoder, check_noise, noise_left, spread_of
from seewhy.training.batches import Batch

ALPHAS = schedule({}).float()
CENTRES, SPREAD = torch.tensor([[1.0, -0.5], [-1.0, 0.8]]), 0.3


def log_p(codes: Tensor, sigma: float) -> Tensor:
    """Of two normal distributions of equal weight, in a copy with noise of ``sigma``; up to a constant."""
    power = SPREAD**2 + sigma**2
    return torch.logsumexp(-(codes[:, None] - CENTRES).square().sum(2) / (2 * power), 1)


def slope(codes: Tensor, sigma: float) -> Tensor:
    leaf = codes.clone().requires_grad_()
    return torch.autograd.grad(log_p(leaf, sigma).sum(), leaf)[0]


def knows(predicts: str) -> Score:
    """A diffusion model that has learnt the mixture to the end: what it predicts is computed."""

    def network(noisy: Tensor, t: int) -> Tensor:
        a = float(ALPHAS[t])
        sigma = ((1 - a) / a) ** 0.5
        noise = -sigma * slope(noisy / a**0.5, sigma)
        first = (noisy - (1 - a) ** 0.5 * noise) / a**0.5
        told = {"epsilon": noise, "sample": first, "v_prediction": a**0.5 * noise - (1 - a) ** 0.5 * first}
        return torch.cat([told[predicts], torch.full_like(noisy, 7.0)], 1)  # a learnt variance behind it

    return Score(network, ALPHAS, predicts)  # type: ignore[arg-type]


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("t", [20, 200, 500])
def test_the_pull_of_a_diffusion_model_is_the_score_of_the_noisy_codes(predicts: str, t: int) -> None:
    codes = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    sigma = float(((1 - ALPHAS[t]) / ALPHAS[t]).sqrt())
    pull = knows(predicts).denoised(codes, t) - codes
    torch.testing.assert_close(pull, sigma**2 * slope(codes, sigma), rtol=1e-3, atol=1e-4)


def test_what_it_makes_of_a_code_is_the_mean_of_those_that_it_may_be_a_copy_of() -> None:
    """By drawing: codes of the mixture weighted by how likely noise leads from each to the one seen."""
    draw = torch.Generator().manual_seed(1)
    n, t = 400_000, 300
    clean = CENTRES[torch.randint(2, (n,), generator=draw)] + SPREAD * torch.randn(n, 2, generator=draw)
    sigma = float(((1 - ALPHAS[t]) / ALPHAS[t]).sqrt())
    seen = torch.tensor([[0.2, 0.3]])
    weight = (-(clean - seen).square().sum(1) / (2 * sigma**2)).softmax(0)
    torch.testing.assert_close(knows("epsilon").denoised(seen, t)[0], weight @ clean, rtol=0.02, atol=0.01)


def test_the_step_is_the_one_whose_noise_comes_nearest() -> None:
    score = knows("epsilon")
    sigmas = ((1 - ALPHAS) / ALPHAS).sqrt()
    assert [score.step(float(sigmas[t])) for t in (0, 90, 600, 999)] == [0, 90, 600, 999]
    between = float((sigmas[90] * sigmas[91]).sqrt())
    assert (score.step(between * 0.999), score.step(between * 1.001)) == (90, 91)
    assert score.step(1e9) == 999


def normal(n: int = 4000) -> Tensor:
    return 2.0 + 3.0 * torch.randn(n, 5, generator=torch.Generator().manual_seed(2))


def test_before_training_it_is_the_answer_for_a_normal_distribution() -> None:
    """``R(h) - h = σ² ∇log p_σ(h) = -σ² (h - mean) / (spread² + σ²)``."""
    network = Autoencoder(5, noise=0.5)
    network.centre.fill_(2.0)
    network.spread.fill_(3.0)
    codes, sigma = normal(10), 1.5
    torch.testing.assert_close(network(codes) - codes, -(sigma**2) * (codes - 2) / (9 + sigma**2))
    part = noise_left(network, normal(), sigma)
    assert part == pytest.approx((1 / (1 + 0.5**2)) ** 0.5, abs=0.01)


def test_what_is_learnt_comes_near_the_score_of_a_mixture() -> None:
    draw = torch.Generator().manual_seed(3)
    codes = CENTRES[torch.randint(2, (3000,), generator=draw)] + SPREAD * torch.randn(3000, 2, generator=draw)
    learnt = autoencoder(codes, 0.5, 200)
    sigma = 0.5 * float(spread_of(codes))
    wanted, found = sigma**2 * slope(codes[:200], sigma), (learnt(codes[:200]) - codes[:200]).detach()
    linear = Autoencoder(2, 0.5)
    linear.centre.copy_(codes.mean(0))
    linear.spread.copy_(spread_of(codes))
    off = float((found - wanted).norm() / wanted.norm())
    assert off < 0.3 * float((linear(codes[:200]).detach() - codes[:200] - wanted).norm() / wanted.norm())
    assert off < 0.25


def test_the_loss_is_of_noise_of_its_size_in_spreads() -> None:
    network = Autoencoder(2, 0.5)
    network.spread.fill_(4.0)
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = Batch([0, 1], {"codes": torch.tensor([[0.0, 4.0], [8.0, 0.0]]), "noise": torch.ones(2, 2)})
    task = Denoise(network)
    loss = task.loss(task.features(batch), batch)["loss"]
    torch.testing.assert_close(seen[0], batch["codes"] + 2)
    torch.testing.assert_close(loss, ((batch["codes"] + 2) / 1.25 - batch["codes"]).square().mean() / 16)


def test_the_spread_is_around_the_mean_of_each_unit() -> None:
    codes = torch.tensor([[0.0, 10.0], [2.0, 14.0]])
    assert float(spread_of(codes)) == pytest.approx((0.5 * (1 + 4)) ** 0.5)
    assert float(spread_of(torch.zeros(3, 2))) > 0


def test_a_prior_that_takes_no_noise_out_is_refused() -> None:
    codes = normal(200)
    assert noise_left(lambda h: h, codes, 0.7) == pytest.approx(1)
    assert noise_left(lambda h: codes, codes, 0.7) == 0
    with pytest.raises(ModelError) as told:
        check_noise("net", {"prior": "score", "noise_left": 1.06})
    assert str(told.value) == (
        "The prior of net (score) must remove noise from held-out codes, but 106 % of the noise remains. Give the "
        "diffusion model of these codes with its own scheduler, give more pictures, or change prior or noise."
    )
    check_noise("net", {"prior": "score", "noise_left": 0.99})
