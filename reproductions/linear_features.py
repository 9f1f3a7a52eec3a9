"""The linear model of Xue et al. 2024: what each layer makes of each feature, by gradient descent on the true loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PHI, SIGMA = (1.0, 1.0, 0.5, 2.0), (0.0, 1.0, 0.0, 0.0)
"""Strength of each feature, and of the noise that augmentation adds to it."""


@dataclass(frozen=True)
class Descent:
    """Of ``f = W_L … W_1`` on ``-2 E[f(x1)·f(x2)] + E[(f(x)·f(x'))²]``, which is ``-2 tr(WΦ²Wᵀ) + tr((WCWᵀ)²)``.

    Attributes:
        depth: layers.
        decay: of all weights, added to the loss as ``decay |W_l|² / 2``.
        n_steps: of size ``rate``.
        rate: see above.
        start: every layer begins as a turn times this, so that layers are balanced.
    """

    depth: int = 2
    decay: float = 0.0
    n_steps: int = 8_000
    rate: float = 0.005
    start: float = 0.3

    def __call__(
        self, seeds: Sequence[int], phi: Sequence[float] = PHI, sigma: Sequence[float] = SIGMA
    ) -> Float[Tensor, "l s p"]:
        """How long each feature is behind each layer, of each draw of first weights."""
        strength, noise = torch.tensor(phi).double() ** 2, torch.tensor(sigma).double() ** 2
        weights = [
            torch.stack([self._turn(len(phi), seed, layer) for seed in seeds]).requires_grad_()
            for layer in range(self.depth)
        ]
        for _ in range(self.n_steps):
            whole = weights[0]
            for layer in weights[1:]:
                whole = layer @ whole
            common = (whole * strength) @ whole.mT
            every = (whole * (strength + noise)) @ whole.mT
            loss = -2 * common.diagonal(dim1=1, dim2=2).sum() + every.square().sum()
            loss = loss + self.decay / 2 * sum(layer.square().sum() for layer in weights)
            slopes = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for layer, slope in zip(weights, slopes, strict=True):
                    layer -= self.rate * slope
        found, whole = [], None
        for layer in weights:
            whole = layer if whole is None else layer @ whole
            found.append(whole.detach().norm(dim=1))
        return torch.stack(found)

    def _turn(self, p: int, seed: int, layer: int) -> Tensor:
        draw = torch.Generator().manual_seed(1000 * layer + seed)
        return self.start * torch.linalg.qr(torch.randn(p, p, generator=draw, dtype=torch.double)).Q


def closed_form(phi: Sequence[float] = PHI, sigma: Sequence[float] = SIGMA) -> Float[Tensor, " p"]:
    """What the last layer makes of each feature: ``phi / (phi² + sigma²)``.

    >>> closed_form().tolist()
    [1.0, 0.5, 2.0, 0.5]
    """
    strength, noise = torch.tensor(phi).double(), torch.tensor(sigma).double()
    return strength / (strength**2 + noise**2)


def probe_errors(weights: Float[Tensor, "k p"], feature: int, n: int, n_draws: int = 300) -> Float[Tensor, "d k"]:
    """How often a class that one feature tells is told wrong, by ridge regression on so many pictures.

    Features are signs of their strength (as in the model), with as much noise beside; each row of ``weights`` is a
    representation, and all see the same pictures.
    """
    draw = torch.Generator().manual_seed(feature)
    p, wrong = weights.shape[1], []
    for _ in range(n_draws):
        signs = (torch.randint(2, (n + 500, p), generator=draw) * 2 - 1).double()
        x = signs + torch.randn(n + 500, p, generator=draw, dtype=torch.double)
        y, each = signs[:, feature], []
        for own in weights:
            z = x * own / (own.square().mean().sqrt() + 1e-12)
            kernel = z[:n] @ z[:n].T + torch.eye(n, dtype=torch.double)
            said = z[n:] @ (z[:n].T @ torch.linalg.solve(kernel, y[:n]))
            each.append((said.sign() != y[n:]).double().mean())
        wrong.append(torch.stack(each))
    return torch.stack(wrong)
