"""Plug & Play Generative Networks (Nguyen et al. 2017, arXiv:1612.00005): a walk in the codes of a generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count, NotNegative, Positive, check_fields
from ..metrics.clusters import k_means
from ..progress import Progress
from .conditions import Condition, Gradient
from .generator import Generator


@dataclass(frozen=True, eq=False)
class Hole:
    """What is to be filled in."""

    picture: Float[Tensor, "1 3 s s"]
    inside: Float[Tensor, "1 1 s s"]

    def filled(self, made: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        """The picture, with what was made in its hole."""
        return self.inside * made + (1 - self.inside) * self.picture


@dataclass(frozen=True, eq=False)
class Terms:
    """Of one step, each of the codes' shape; what is not asked for is zero."""

    prior: Float[Tensor, "b d"]
    condition: Float[Tensor, "b d"]
    outside: Float[Tensor, "b d"]
    pictures: Float[Tensor, "b 3 s s"]


@dataclass(frozen=True, eq=False)
class Chains:
    """Walks side by side."""

    steps: tuple[int, ...]
    pictures: Float[Tensor, "t b 3 s s"]
    values: Float[Tensor, "t b"]
    codes: Float[Tensor, "b d"]
    prior_error: Float[Tensor, " b"] | None
    sizes: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class PPGN:
    """``h' = h + ε1 (E(G(h)) - h) + ε2 ∂log p(c | G(h))/∂h + N(0, ε3²)``, one step of a chain (paper, equation 11).

    As in the released sampler the whole step is then divided by its mean size and multiplied by a rate that goes
    linearly to its end, and codes are clipped. So ``ε`` matter beside one another only, and a released ``ε3`` of 1e-17
    is no noise at all: chains differ by their starts. Without ``normalise`` the step is the equation itself, where
    ``ε3`` is what it says. Differs: bounds are those of the training codes instead of 0 and 30, the rate is a part of
    them (the authors' 1 of 30), and with ``calibrate`` ``ε1`` is told in units in which 1 means that prior and the
    target's own score pull alike at the start (the authors' 1e-5 is about their network's units).

    Cost: per step one pass through the encoder, and one forward and backward through generator and condition.

    Args:
        eps1: of the prior; 0 is plain activation maximisation in the code (DGN-AM).
        eps2: of the condition.
        eps3: of the noise.
        eps4: of the pixels outside a hole.
        lr: length of the first step, as a part of the codes' range.
        lr_end: of the last, evenly shorter between, so that chains come to rest; ``None``, all alike, as the authors
            have it for classes.
        n_steps: of a chain.
        gradient: of ``log p``, exact or as released.
        normalise: steps brought to one length.
        calibrate: ``ε1`` in the units above.
        clip: codes to their bounds.
        n_shown: pictures that are kept of a chain, beside the start.
    """

    eps1: NotNegative = 0.1
    eps2: NotNegative = 1.0
    eps3: NotNegative = 0.0
    eps4: NotNegative = 1.0
    lr: Positive = 1 / 30
    lr_end: NotNegative | None = 0.0
    n_steps: Count = 200
    gradient: Gradient = "log_softmax"
    normalise: bool = True
    calibrate: bool = True
    clip: bool = True
    n_shown: Count = 8

    def __post_init__(self) -> None:
        check_fields(self, "The sampler")

    def terms(
        self, generator: Generator, condition: Condition | None, codes: Float[Tensor, "b d"], hole: Hole | None = None
    ) -> Terms:
        """What pulls at each code; a term whose ``ε`` is 0 is not computed."""
        with torch.enable_grad():
            leaf = codes.detach().requires_grad_()
            made = generator.network(leaf)
            shown = made if hole is None else hole.filled(made)
            zero = torch.zeros_like(codes)
            climbed = outside = zero
            if condition is not None and self.eps2:
                goal = condition.objective(shown, self.gradient).sum()
                climbed = torch.autograd.grad(goal, leaf, retain_graph=hole is not None)[0]
            if hole is not None and self.eps4:
                off = ((made - hole.picture) * (1 - hole.inside)).square().sum() / 2
                outside = torch.autograd.grad(-off, leaf)[0]
        with torch.no_grad():
            prior = generator.read(shown.detach()) - codes if self.eps1 else zero
        return Terms(prior, climbed, outside, shown.detach())

    def sample(
        self,
        generator: Generator,
        condition: Condition | None,
        starts: Float[Tensor, "b d"],
        *,
        seed: int = 0,
        hole: Hole | None = None,
        progress: Progress | None = None,
    ) -> Chains:
        """Walk from every start; a chain is the same whatever others walk beside it."""
        low, high = generator.bounds
        codes = starts.clamp(low, high) if self.clip else starts.clone()
        eps1 = self.eps1 * self._scale(generator, condition, codes, hole)
        draws = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(len(codes))]
        told = _Told(self, condition)
        sizes = []
        for step in (progress or Progress()).track(range(self.n_steps), "Walking", self.n_steps):
            terms = self.terms(generator, condition, codes, hole)
            told.see(step, terms.pictures)
            sizes.append((float(terms.prior.abs().mean()), float(terms.condition.abs().mean())))
            noise = torch.stack([torch.randn(codes.shape[1], generator=g) for g in draws]) if self.eps3 else 0.0
            move = eps1 * terms.prior + self.eps2 * terms.condition + self.eps4 * terms.outside
            codes = codes + self._stride(move + self.eps3 * noise, step, high - low)
            codes = codes.clamp(low, high) if self.clip else codes
        end = replace(self, eps1=1.0, eps2=0.0, eps4=0.0).terms(generator, None, codes, hole)
        told.see(self.n_steps, end.pictures)
        error = end.prior.norm(dim=1) / codes.norm(dim=1).clamp_min(1e-12)
        return told.chains(codes, error, (sizes[0], sizes[-1]))

    def _stride(self, move: Float[Tensor, "b d"], step: int, span: float) -> Float[Tensor, "b d"]:
        """The step that is taken, each chain's by itself."""
        if not self.normalise:
            return move
        return self.rate(step) * span * move / move.abs().mean(1, keepdim=True).clamp_min(1e-30)

    def rate(self, step: int) -> float:
        """Of a step, as a part of the range."""
        end = self.lr if self.lr_end is None else self.lr_end
        return self.lr + (end - self.lr) * step / max(1, self.n_steps - 1)

    def _scale(
        self, generator: Generator, condition: Condition | None, codes: Float[Tensor, "b d"], hole: Hole | None
    ) -> Float[Tensor, "b 1"]:
        """Size of the gradient of the target's own score over that of the prior's pull, at each start."""
        if not (self.calibrate and self.normalise and self.eps1 and self.eps2) or condition is None:
            return torch.ones(len(codes), 1, dtype=codes.dtype)
        with torch.enable_grad():
            leaf = codes.detach().requires_grad_()
            made = generator.network(leaf)
            score = condition.scores(made if hole is None else hole.filled(made))[:, condition.index].sum()
            slope = torch.autograd.grad(score, leaf)[0].abs().mean(1, keepdim=True)
        pull = replace(self, eps2=0.0).terms(generator, None, codes, hole).prior.abs().mean(1, keepdim=True)
        return slope / pull.clamp_min(1e-30)


@dataclass(frozen=True)
class PixelAscent:
    """Plain activation maximisation: pixels themselves climb, with no prior but staying in 0…1; the control.

    ``x' = clip(x + lr · d / mean |d|)``, ``d = ∂ log p(c | x)/∂x``, as many steps as the walk in codes has.
    """

    like: PPGN = PPGN()
    lr: float = 1 / 30

    def sample(
        self, generator: Generator, condition: Condition, starts: Float[Tensor, "b 3 s s"], hole: Hole | None = None
    ) -> Chains:
        """Climb from every picture; the generator only says where the codes of the pictures lie in the end."""
        pictures, told, sizes = starts.clone(), _Told(self.like, condition), []
        for step in range(self.like.n_steps):
            with torch.enable_grad():
                leaf = pictures.detach().requires_grad_()
                shown = leaf if hole is None else hole.filled(leaf)
                move = torch.autograd.grad(condition.objective(shown, self.like.gradient).sum(), leaf)[0]
            told.see(step, shown.detach())
            size = move.abs().mean((1, 2, 3), keepdim=True)
            sizes.append((0.0, float(size.mean())))
            length = self.lr * self.like.rate(step) / self.like.lr
            pictures = (pictures + length * move / size.clamp_min(1e-30)).clamp(0, 1)
        shown = pictures if hole is None else hole.filled(pictures)
        told.see(self.like.n_steps, shown)
        with torch.no_grad():
            return told.chains(generator.read(shown), None, (sizes[0], sizes[-1]))


class _Told:
    """The pictures of a walk that are kept, evenly, with the start and the end."""

    def __init__(self, how: PPGN, condition: Condition | None) -> None:
        n = min(how.n_shown, how.n_steps)
        self.steps = tuple(sorted({round(how.n_steps * i / n) for i in range(n + 1)}))
        self.value: Callable[[Tensor], Tensor] = (
            (lambda x: torch.zeros(len(x))) if condition is None else condition.value
        )
        self.pictures: list[Tensor] = []
        self.values: list[Tensor] = []

    def see(self, step: int, pictures: Float[Tensor, "b 3 s s"]) -> None:
        if step in self.steps:
            self.pictures.append(pictures.detach())
            with torch.no_grad():
                self.values.append(self.value(pictures))

    def chains(
        self,
        codes: Float[Tensor, "b d"],
        error: Float[Tensor, " b"] | None,
        sizes: tuple[tuple[float, float], tuple[float, float]],
    ) -> Chains:
        return Chains(self.steps, torch.stack(self.pictures), torch.stack(self.values), codes, error, sizes)


PART = 8
"""One in so many of the kept codes is a candidate for a facet."""
JITTER = 0.5
"""Of chains that start at one picture, as a part of the spread of codes."""


def facets(generator: Generator, condition: Condition, n: int, seed: int) -> Float[Tensor, "n d"]:
    """The means of ``n`` clusters among the kept codes whose pictures come nearest to what is asked for.

    Multifaceted Feature Visualisation (Nguyen, Yosinski & Clune 2016, arXiv:1602.03616) starts from the means of
    clusters of training pictures that excite a unit. Here they are found by the condition itself, so that neurons and
    sentences have facets as well as classes.
    """
    codes = generator.codes
    with torch.no_grad():
        found = [condition.objective(generator.network(part), "log_softmax") for part in codes.split(32)]
    return facets_among(codes, torch.cat(found), n, seed)


def facets_among(codes: Float[Tensor, "m d"], fits: Float[Tensor, " m"], n: int, seed: int) -> Float[Tensor, "n d"]:
    """The means of ``n`` clusters among the codes that fit best."""
    most = max(n, min(len(codes), max(4 * n, len(codes) // PART)))
    best = codes[fits.topk(min(most, len(codes))).indices]
    if len(best) <= n:
        return best[torch.arange(n) % len(best)]
    return k_means(best, n, torch.Generator().manual_seed(seed))


def noise(generator: Generator, n: int, seed: int) -> Float[Tensor, "n d"]:
    """Codes of independent units, each with the mean and spread that it has on training pictures.

    The authors draw from N(0, 1), which means this much for their codes alone.
    """
    codes = generator.codes
    draws = torch.Generator().manual_seed(seed)
    return codes.mean(0) + codes.std(0) * torch.randn(n, codes.shape[1], generator=draws)


def at_picture(generator: Generator, picture: Float[Tensor, "1 3 s s"], n: int, seed: int) -> Float[Tensor, "n d"]:
    """The picture's own code, and around it others."""
    with torch.no_grad():
        own = generator.read(picture)
    around = noise(generator, n, seed) - generator.codes.mean(0)
    around[0] = 0
    return own + JITTER * around


def in_hole(generator: Generator, hole: Hole, n: int, seed: int) -> Float[Tensor, "n d"]:
    """The code of the picture with its hole grey, as the authors begin; around it others."""
    grey = hole.picture.mean((2, 3), keepdim=True).expand_as(hole.picture)
    return at_picture(generator, hole.filled(grey), n, seed)


STARTS: Mapping[str, str] = {
    "facets": "the means of clusters of training codes that come nearest to it",
    "noise": "noise with the mean and spread of training codes",
    "picture": "the picture given, and codes around it",
}
"""How each is told."""
