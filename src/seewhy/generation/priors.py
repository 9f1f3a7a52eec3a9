"""Priors over codes: a denoising autoencoder, or the score of a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..errors import ModelError
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import Batch, TrainingData
from ..training.loop import Training, train
from ..training.task import Task

MOST_EPOCHS = 100
"""Largest number of training epochs, against overfitting."""
Predicts = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True, eq=False)
class Score:
    """The denoiser of a diffusion model.

        R(h) = h + σ² ∇log p_σ(h) = h - σ ε(√a h, t)

    - ``h``: a noisy code; ``R(h)`` is the denoised code, and ``p_σ`` the density of noisy codes.
    - ``ε``: the predicted noise at step ``t`` (Vincent 2011).
    - ``a``: the fraction of the signal's power at step ``t``; ``σ² = (1 - a) / a``.

    ``R(h)`` is the posterior mean of the clean code, as for a denoising autoencoder.

    Attributes:
        network: function from ``(x_t, t)`` to the prediction; channels of a learnt variance are ignored.
        alphas: fraction ``a`` of the power at each step.
        predicts: type of the prediction, as in diffusers.
    """

    network: Callable[[Tensor, int], Tensor]
    alphas: Float[Tensor, " steps"]
    predicts: Predicts = "epsilon"

    def step(self, sigma: float) -> int:
        """Return the step with the closest noise level."""
        sigmas = ((1 - self.alphas) / self.alphas).sqrt()
        return int((sigmas.clamp_min(1e-12).log() - torch.tensor(sigma).log()).abs().argmin())

    def denoised(self, codes: Tensor, t: int) -> Tensor:
        a = float(self.alphas[t])
        keep, off = a**0.5, (1 - a) ** 0.5
        noisy = keep * codes
        noise = self.network(noisy, t)[:, : codes.shape[1]]
        if self.predicts == "v_prediction":
            noise = keep * noise + off * noisy
        elif self.predicts == "sample":
            noise = (noisy - keep * noise) / off
        return codes - off / keep * noise


class Autoencoder(nn.Module):
    """A small denoising network on codes; PPGN-h uses seven layers with a bottleneck.

    The network adds a learnt correction to ``h / (1 + σ²)``, the optimal linear denoiser of a code ``h`` with noise
    ``σ`` (Karras et al. 2022, arXiv:2206.00364, table 1).
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, n_code: int, noise: float, hidden: int = 512) -> None:
        super().__init__()
        self.noise = noise
        last = nn.Linear(hidden, n_code)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        inner = (nn.Linear(n_code, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.net = nn.Sequential(*inner, last)
        self.register_buffer("centre", torch.zeros(n_code))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        x, power = (codes - self.centre) / self.spread, 1 + self.noise**2
        learnt: Tensor = self.net(x / power**0.5)
        return self.centre + self.spread * (x / power + self.noise / power**0.5 * learnt)


class Denoise(Task):
    """Denoising of codes; the loss is the standardised mean squared error."""

    needs: ClassVar[tuple[str, ...]] = ("codes", "noise")
    moves: ClassVar[bool] = False

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def features(self, batch: Batch) -> Tensor:
        own = self.network
        return own(batch["codes"] + own.noise * own.spread * batch["noise"])

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": mse_loss(features, batch["codes"]) / self.network.spread**2}


def spread_of(codes: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the standard deviation of all units around their means."""
    return (codes - codes.mean(0)).square().mean().sqrt().clamp_min(1e-6)


def autoencoder(
    codes: Float[Tensor, "n d"], noise: float, n_steps: int, *, seed: int = 0, progress: Progress | None = None
) -> Autoencoder:
    """Train a denoising autoencoder on codes; ``noise`` is relative to their standard deviation."""
    with seeded(seed):
        network = Autoencoder(codes.shape[1], noise)
    network.centre.copy_(codes.mean(0))
    network.spread.copy_(spread_of(codes))

    def noises(index: list[int], draw: torch.Generator) -> Tensor:
        return torch.randn(len(index), codes.shape[1], generator=draw)

    data = TrainingData(len(codes), {"codes": codes, "noise": noises})
    n_steps = min(n_steps, MOST_EPOCHS * -(-len(codes) // 64))
    train(Denoise(network), data, Training(n_steps, 64, weight_decay=0.0, seed=seed), progress=progress)
    return network


@torch.no_grad()
def noise_left(denoise: Callable[[Tensor], Tensor], codes: Float[Tensor, "n d"], sigma: float) -> float:
    """Return the fraction of noise that remains on held-out codes."""
    noise = sigma * torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    return round(float((denoise(codes + noise) - codes).norm() / noise.norm()), 5)


def check_noise(name: str, facts: dict[str, Any]) -> None:
    if facts["noise_left"] >= 1:
        raise ModelError(
            f"The prior of {name} ({facts['prior']}) must remove noise from held-out codes, but "
            f"{100 * facts['noise_left']:.0f} % of the noise remains. Give the diffusion model of these codes with its "
            f"own scheduler, give more pictures, or change prior or noise."
        )
