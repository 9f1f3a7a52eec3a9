"""Plug & Play Generative Networks (Nguyen et al. 2017, arXiv:1612.00005): sampling of a generator's codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Checked, Count, NotNegative, Positive
from ..clusters import k_means
from ..progress import Progress
from .conditions import Condition, Gradient
from .generator import Generator


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a step; unused terms are zero."""

    prior: Float[Tensor, "b d"]
    condition: Float[Tensor, "b d"]
    pictures: Float[Tensor, "b 3 s s"]


@dataclass(frozen=True, eq=False)
class Chains:
    """The results of parallel sampling chains."""

    steps: tuple[int, ...]
    pictures: Float[Tensor, "t b 3 s s"]
    values: Float[Tensor, "t b"]
    codes: Float[Tensor, "b d"]
    prior_error: Float[Tensor, " b"] | None
    sizes: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class PPGN(Checked):
    """Markov chain sampling of codes with a prior and a target (paper, equation 11).

        h' = h + ε1 (R(h) - h) + ε2 ∂log p(c | G(h))/∂h + N(0, ε3²)

    - ``h``: the code.
    - ``G``: the generator.
    - ``R``: the denoiser of codes, by default ``E(G(h))`` (:class:`seewhy.generation.decoders.Bring`).
    - ``c``: the target; ``p(c | …)`` is its probability.
    - ``N(0, ε3²)``: Gaussian noise.

    As in the released sampler, each step is divided by its mean size and multiplied by a linearly decaying rate, so
    only the ratios of the ``ε`` matter. Codes are clipped to the range of the training codes.

    Args:
        eps1: strength ``ε1`` of the prior, at least 0; 0 gives DGN-AM.
        eps2: strength ``ε2`` of the target, at least 0.
        eps3: strength ``ε3`` of the noise, at least 0; higher values give more varied pictures.
        lr: length of the first step, as a fraction of the range of the codes.
        lr_end: length of the last step, with linear decay; ``None`` for constant steps.
        n_steps: number of steps per chain.
        gradient: ``"log_softmax"`` for the gradient of ``log p``, or ``"own_logit"`` as in the released code.
        normalise: whether all steps are scaled to the same length; ``False`` uses the equation without scaling.
        calibrate: whether to scale ``eps1`` so that 1 gives prior and target equal strength at the start.
        clip: whether to clip codes to the range of the training codes.
        n_shown: number of displayed pictures per chain, in addition to the start.
    """

    noun = "the sampler"

    eps1: NotNegative = 0.1
    eps2: NotNegative = 1.0
    eps3: NotNegative = 0.0
    lr: Positive = 1 / 30
    lr_end: NotNegative | None = 0.0
    n_steps: Count = 200
    gradient: Gradient = "log_softmax"
    normalise: bool = True
    calibrate: bool = True
    clip: bool = True
    n_shown: Count = 8

    def terms(self, generator: Generator, condition: Condition | None, codes: Float[Tensor, "b d"]) -> Terms:
        """Compute the terms of a step; terms with ``ε = 0`` are zero."""
        prior = climbed = torch.zeros_like(codes)
        with torch.enable_grad():
            leaf = codes.detach().requires_grad_()
            made = generator.network(leaf)
            if condition is not None and self.eps2:
                climbed = torch.autograd.grad(condition.objective(made, self.gradient).sum(), leaf)[0]
        with torch.no_grad():
            prior = generator.pull(codes, made.detach()) if self.eps1 else prior
        return Terms(prior, climbed, made.detach())

    def sample(
        self,
        generator: Generator,
        condition: Condition | None,
        starts: Float[Tensor, "b d"],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Chains:
        """Run an independent chain from each starting code."""
        low, high = generator.bounds
        codes = starts.clamp(low, high) if self.clip else starts.clone()
        eps1 = self.eps1 * self._scale(generator, condition, codes)
        draws = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(len(codes))]
        told = _Told(self, condition)
        for step in (progress or Progress()).track(range(self.n_steps), "Generating pictures", self.n_steps):
            terms = self.terms(generator, condition, codes)
            told.see(step, terms.pictures)
            told.sizes.append((float(terms.prior.abs().mean()), float(terms.condition.abs().mean())))
            noise = torch.stack([torch.randn(codes.shape[1], generator=g) for g in draws]) if self.eps3 else 0.0
            move = eps1 * terms.prior + self.eps2 * terms.condition + self.eps3 * noise
            if self.normalise:  # each chain's by itself
                move = self.rate(step) * (high - low) * move / move.abs().mean(1, keepdim=True).clamp_min(1e-30)
            codes = (codes + move).clamp(low, high) if self.clip else codes + move
        end = replace(self, eps1=1.0).terms(generator, None, codes)
        error = end.prior.norm(dim=1) / codes.norm(dim=1).clamp_min(1e-12)
        return told.chains(end.pictures, codes, error)

    def rate(self, step: int) -> float:
        """Return the length of a step, as a fraction of the codes' range."""
        end = self.lr if self.lr_end is None else self.lr_end
        return self.lr + (end - self.lr) * step / max(1, self.n_steps - 1)

    def _scale(
        self, generator: Generator, condition: Condition | None, codes: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b 1"]:
        """Return the ratio of the target's gradient to the prior's step at each start."""
        if condition is None or not (self.calibrate and self.normalise and self.eps1 and self.eps2):
            return torch.ones(len(codes), 1, dtype=codes.dtype)
        with torch.enable_grad():
            leaf = codes.detach().requires_grad_()
            score = condition.scores(generator.network(leaf))[:, condition.index].sum()
            slope = torch.autograd.grad(score, leaf)[0].abs().mean(1, keepdim=True)
        pull = self.terms(generator, None, codes).prior.abs().mean(1, keepdim=True)
        return slope / pull.clamp_min(1e-30)


@dataclass(frozen=True)
class PixelAscent:
    """Gradient ascent on pixels without a prior, for comparison.

        x' = clip(x + lr · d / mean |d|)

    ``x`` is the picture, ``d`` the gradient of the target, and ``lr`` the length of a step.
    """

    like: PPGN = PPGN()
    lr: float = 1 / 30

    def sample(self, condition: Condition, starts: Float[Tensor, "b 3 s s"]) -> Chains:
        pictures, told = starts.clone(), _Told(self.like, condition)
        for step in range(self.like.n_steps):
            with torch.enable_grad():
                leaf = pictures.detach().requires_grad_()
                move = torch.autograd.grad(condition.objective(leaf, self.like.gradient).sum(), leaf)[0]
            told.see(step, pictures)
            size = move.abs().mean((1, 2, 3), keepdim=True)
            told.sizes.append((0.0, float(size.mean())))
            length = self.lr * self.like.rate(step) / self.like.lr
            pictures = (pictures + length * move / size.clamp_min(1e-30)).clamp(0, 1)
        return told.chains(pictures, pictures.flatten(1), None)


class _Told:
    """Evenly spaced pictures of a chain, with the first and the last picture, and the sizes of its steps."""

    def __init__(self, how: PPGN, condition: Condition | None) -> None:
        n = min(how.n_shown, how.n_steps)
        self.steps = tuple(sorted({round(how.n_steps * i / n) for i in range(n + 1)}))
        self.condition = condition
        self.pictures: list[Tensor] = []
        self.values: list[Tensor] = []
        self.sizes: list[tuple[float, float]] = []

    def see(self, step: int, pictures: Float[Tensor, "b 3 s s"]) -> None:
        if step in self.steps:
            self.pictures.append(pictures.detach())
            with torch.no_grad():
                own = self.condition
                self.values.append(torch.zeros(len(pictures)) if own is None else own.value(pictures))

    def chains(
        self, last: Float[Tensor, "b 3 s s"], codes: Float[Tensor, "b d"], error: Float[Tensor, " b"] | None
    ) -> Chains:
        self.see(self.steps[-1], last)
        pictures, values = torch.stack(self.pictures), torch.stack(self.values)
        return Chains(self.steps, pictures, values, codes, error, (self.sizes[0], self.sizes[-1]))


PART = 8
"""Ratio of stored codes to candidates for a facet."""
JITTER = 0.5
"""Standard deviation of starting points around a picture, relative to the standard deviation of codes."""


def facets(generator: Generator, condition: Condition, n: int, seed: int) -> Float[Tensor, "n d"]:
    """Return centres of clusters of the codes that score highest (Nguyen et al. 2016, arXiv:1602.03616)."""
    codes = generator.codes
    with torch.no_grad():
        found = [condition.objective(generator.network(part), "log_softmax") for part in codes.split(32)]
    return facets_among(codes, torch.cat(found), n, seed)


def facets_among(codes: Float[Tensor, "m d"], fits: Float[Tensor, " m"], n: int, seed: int) -> Float[Tensor, "n d"]:
    """Return the centres of ``n`` clusters of the codes with the highest ``fits``."""
    most = max(n, min(len(codes), max(4 * n, len(codes) // PART)))
    best = codes[fits.topk(min(most, len(codes))).indices]
    if len(best) <= n:
        return best[torch.arange(n) % len(best)]
    return k_means(best, n, torch.Generator().manual_seed(seed))


def noise(generator: Generator, n: int, seed: int) -> Float[Tensor, "n d"]:
    """Sample codes whose units are independent, each with the mean and standard deviation of the training codes."""
    codes = generator.codes
    draws = torch.Generator().manual_seed(seed)
    return codes.mean(0) + codes.std(0) * torch.randn(n, codes.shape[1], generator=draws)


def at_picture(generator: Generator, picture: Float[Tensor, "1 3 s s"], n: int, seed: int) -> Float[Tensor, "n d"]:
    """Return the code of a picture and random codes around it."""
    with torch.no_grad():
        own = generator.read(picture)
    around = noise(generator, n, seed) - generator.codes.mean(0)
    around[0] = 0
    return own + JITTER * around


STARTS: Mapping[str, str] = {
    "facets": "the means of clusters of training codes that come nearest to it",
    "noise": "noise with the mean and spread of training codes",
    "picture": "the picture given, and codes around it",
}
"""Descriptions of the starting points."""
