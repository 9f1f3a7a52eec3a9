"""Parametric forms of learning curves, and predictions for larger training sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .bootstrap import counts

EXPONENTS = (0.01, 3.0)
"""Bounds of the exponents."""
LEAST = 1e-9


@dataclass(frozen=True)
class CurveForm(ABC):
    """A parametric form of a learning curve, fitted by weighted least squares to many curves at once.

    Exponents and limits are found by grid search, and linear parameters in closed form (variable projection).

    Attributes:
        falls: column of the parameter that is positive if the curve falls.
        exponent: column of the exponent, which must lie inside its bounds.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str]
    n_free: ClassVar[int]
    saturates: ClassVar[bool] = True
    falls: ClassVar[int | None] = None
    exponent: ClassVar[int | None] = None

    @abstractmethod
    def fit(
        self, n: Float[Tensor, " s"], e: Float[Tensor, "b s"], weight: Float[Tensor, " s"], top: float = 1.0
    ) -> Float[Tensor, "b p"]:
        """Fit the form and return its parameters, one row per curve."""

    @abstractmethod
    def predict(self, found: Float[Tensor, "*b p"], n: Float[Tensor, " m"]) -> Float[Tensor, "*b m"]:
        """Return the error at each size, 0 to 1."""

    def failed(self, found: Float[Tensor, "b p"]) -> Bool[Tensor, " b"]:
        """Return which fits failed: infinite parameters, a rising curve, or an exponent at its bound."""
        good = found.isfinite().all(1)
        if self.falls is not None:
            good &= found[:, self.falls] > 0
        if self.exponent is not None:
            column = found[:, self.exponent]
            good &= (column > EXPONENTS[0] * 1.001) & (column < EXPONENTS[1] * 0.999)
        return ~good


def relative(e: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
    """Return weights proportional to ``1 / e²``, with mean 1, for a least-squares fit of relative errors."""
    weight = e.clamp(min=LEAST).pow(-2)
    return weight / weight.mean()


@dataclass(frozen=True)
class LogLinear(CurveForm):
    """A curve that falls by a constant amount per doubling, down to 0 (Sun et al. 2017, figure 4)."""

    name: ClassVar[str] = "log-linear"
    formula: ClassVar[str] = "e = a − b log₂ n"
    paper: ClassVar[str] = "Sun et al. 2017, arXiv:1707.02968"
    n_free: ClassVar[int] = 2
    saturates: ClassVar[bool] = False
    falls: ClassVar[int | None] = 1

    def fit(self, n: Tensor, e: Tensor, weight: Tensor, top: float = 1.0) -> Tensor:
        a, b = _line(n.log2().expand_as(e), e, weight)
        return torch.stack([a, -b], 1)

    def predict(self, found: Tensor, n: Tensor) -> Tensor:
        return (found[..., :1] - found[..., 1:2] * n.log2()).clamp(0, 1)


@dataclass(frozen=True)
class PowerLaw(CurveForm):
    """A power law above a constant floor (M2 of Alabdulmohsin et al.)."""

    name: ClassVar[str] = "power law with floor"
    formula: ClassVar[str] = "e = E + A n^−α"
    paper: ClassVar[str] = "Hestness et al. 2017, arXiv:1712.00409"
    n_free: ClassVar[int] = 3
    falls: ClassVar[int | None] = 1
    exponent: ClassVar[int | None] = 2

    def fit(self, n: Tensor, e: Tensor, weight: Tensor, top: float = 1.0) -> Tensor:
        low, high = (torch.tensor(x).log() for x in EXPONENTS)
        grid = torch.linspace(float(low), float(high), 41, dtype=e.dtype).expand(len(e), -1)
        step = float(high - low) / 40
        for _ in range(4):
            alpha = grid.clamp(float(low), float(high)).exp()
            floor, above, off = self._given(n / n[-1], e, weight, alpha)
            best = off.argmin(1, keepdim=True)
            grid = grid.gather(1, best) + torch.linspace(-step, step, 17, dtype=e.dtype)
            step /= 8
        alpha, floor, above = (v.gather(1, best)[:, 0] for v in (alpha, floor, above))
        return torch.stack([floor, above * n[-1] ** alpha, alpha], 1)

    def _given(self, n: Tensor, e: Tensor, weight: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return floor, factor and squared error of the best curve for each exponent ``(b, g)``."""
        t, y = n.expand(*alpha.shape, -1) ** -alpha[..., None], e[:, None].expand(-1, alpha.shape[1], -1)
        floor, above = _line(t, y, weight)
        alone = (weight * t * y).sum(-1) / (weight * t * t).sum(-1)
        flat = (weight * y).sum(-1) / weight.sum()
        above = torch.where(floor < 0, alone, above)
        floor = torch.where(above < 0, flat, floor.clamp(min=0))
        above = above.clamp(min=0)
        return floor, above, (weight * (floor[..., None] + above[..., None] * t - y).square()).sum(-1)

    def predict(self, found: Tensor, n: Tensor) -> Tensor:
        floor, above, alpha = found[..., :1], found[..., 1:2], found[..., 2:]
        return (floor + above * n**-alpha).clamp(0, 1)


@dataclass(frozen=True)
class Sigmoid(CurveForm):
    """A power law between chance and a floor (M4 of Alabdulmohsin et al. 2022, eq. 4).

    The authors use gradient descent on logarithms; SeeWhy uses a grid search over both limits and α.
    """

    name: ClassVar[str] = "sigmoid"
    formula: ClassVar[str] = "(e − E) / (e₀ − e)^α = β n^−c"
    paper: ClassVar[str] = "Alabdulmohsin et al. 2022, arXiv:2209.06640"
    n_free: ClassVar[int] = 4
    exponent: ClassVar[int | None] = 4

    def fit(self, n: Tensor, e: Tensor, weight: Tensor, top: float = 1.0) -> Tensor:
        axes = [
            torch.tensor([0.0, 0.4, 0.7, 0.85, 0.94, 0.98]),  # the floor, of the least error
            torch.tensor([0.03, 0.3, 1.0]),  # guessing, between the largest error and the top
            torch.tensor([0.0, 0.4, 0.8, 1.4, 2.5]),  # α
        ]
        grid = torch.cartesian_prod(*axes).to(e).expand(len(e), -1, -1)
        width = torch.tensor([0.15, 0.35, 0.4]).to(e)
        corners = torch.cartesian_prod(*[torch.linspace(-1, 1, k) for k in (3, 3, 3)]).to(e)
        low, high = torch.tensor([0.0, 0.01, 0.0]).to(e), torch.tensor([0.995, 1.0, EXPONENTS[1]]).to(e)
        for _ in range(6):
            found, off = self._given(n, e, weight, grid.clamp(low, high), top)
            best = off.argmin(1)
            chosen = grid[torch.arange(len(e)), best]
            grid = chosen[:, None] + corners * width
            width = width / 1.8
        return found[torch.arange(len(e)), best]

    def _given(self, n: Tensor, e: Tensor, weight: Tensor, grid: Tensor, top: float) -> tuple[Tensor, Tensor]:
        """Return all parameters and the squared error for each pair of limits and α ``(b, g, 3)``."""
        least, most = e.amin(1)[:, None], e.amax(1)[:, None]
        floor = grid[..., 0] * least
        start = most + grid[..., 1] * (max(top, 0.0) - most).clamp(min=0.01)
        alpha = grid[..., 2]
        gap = (start[..., None] - e[:, None]).clamp(min=LEAST).log()
        y = (e[:, None] - floor[..., None]).clamp(min=LEAST).log() - alpha[..., None] * gap
        x = n.log().expand_as(y)
        _, slope = _line(x, y, weight * e.mean(0).square())
        c = (-slope).clamp(*EXPONENTS)
        factor = (y + c[..., None] * x).mean(-1).exp()
        found = torch.stack([floor, start, alpha, factor, c], -1)
        off = (weight * (self.predict(found, n) - e[:, None]).square()).sum(-1)
        return found, off.nan_to_num(torch.inf)

    def predict(self, found: Tensor, n: Tensor) -> Tensor:
        floor, start, alpha, factor, c = (found[..., i : i + 1] for i in range(5))
        right = factor * n**-c
        low, whole = torch.zeros_like(right), (start - floor).clamp(min=0).expand_as(right)
        high = whole
        for _ in range(22):
            middle = (low + high) / 2
            above = middle > right * (whole - middle) ** alpha
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (floor + (low + high) / 2).clamp(0, 1)


def _line(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    share = weight / weight.sum()
    mean_x, mean_y = (share * x).sum(-1, keepdim=True), (share * y).sum(-1, keepdim=True)
    slope = (share * (x - mean_x) * (y - mean_y)).sum(-1) / (share * (x - mean_x).square()).sum(-1).clamp(min=1e-30)
    return mean_y[..., 0] - slope * mean_x[..., 0], slope


FORMS: tuple[CurveForm, ...] = (LogLinear(), PowerLaw(), Sigmoid())
"""All forms."""
SPREAD = 0.03
"""Standard deviation of the relative error of extrapolation per doubling. Fitted on half of 72 public curves
(docs/scaling.md)."""


@dataclass(frozen=True)
class FormFit:
    """A form that was fitted to a curve and its resamples; ``off`` is its error at the ``n_cuts`` held-out sizes."""

    form: CurveForm
    found: Float[Tensor, "1 p"]
    draws: Float[Tensor, "d p"]
    failed: Bool[Tensor, " d"]
    n_cuts: int
    off: float
    share: float = 0.0

    @classmethod
    def of(cls, form: CurveForm, sizes: Tensor, errors: Tensor, resampled: Tensor, top: float) -> FormFit:
        weight, off = relative(errors), held_out_errors(form, sizes, errors, top)
        draws = form.fit(sizes, resampled, weight, top)
        error = float(off.square().mean().sqrt()) if len(off) else float("inf")
        return cls(form, form.fit(sizes, errors[None], weight, top), draws, form.failed(draws), len(off), error)


@dataclass(frozen=True)
class LearningCurve:
    """A fitted learning curve with its bootstrap resamples."""

    sizes: Float[Tensor, " s"]
    errors: Float[Tensor, " s"]
    resampled: Float[Tensor, "d s"]
    forms: tuple[FormFit, ...]
    which: Tensor
    tilt: Float[Tensor, " d"]

    @property
    def form(self) -> FormFit:
        """The form with the smallest held-out error."""
        return self.forms[0]

    def at(self, n: Float[Tensor, " m"]) -> Float[Tensor, "d m"]:
        """Return the error at each size, one row per resample, with extra random error beyond the measured sizes."""
        by_form = torch.stack([fit.form.predict(fit.draws, n) for fit in self.forms])
        doublings = (n / self.sizes[-1]).log2().clamp(min=0)
        drawn = by_form[self.which, torch.arange(len(self.which))]
        return (drawn * (self.tilt[:, None] * doublings).exp()).clamp(0, 1)

    def crossing(self, error: float, most: float, points: int = 600) -> Float[Tensor, " d"]:
        """Return the size at which each resample reaches this error; infinite if the size is above ``most``."""
        n = torch.linspace(float(self.sizes[0].log2()), float(torch.tensor(most).log2()), points).double().exp2()
        below = self.at(n) <= error
        first = below.double().argmax(1)
        return torch.where(below.any(1), n[first], torch.inf)

    def floors(self) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
        """Return the floor for each resample and for the measured curve, by the best form that has a floor.

        The floor, the error for infinitely many pictures, is the first parameter of these forms.
        """
        fit = next(f for f in self.forms if f.form.saturates)
        return fit.draws[torch.ones_like(fit.failed) if bool(fit.failed.all()) else ~fit.failed, 0], fit.found[0, 0]

    def slopes(self) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
        """Return how fast the error falls when the size doubles, for each resample and for the measured curve."""
        return next((f.draws[:, 1], f.found[0, 1]) for f in self.forms if not f.form.saturates)


def learning_curve(
    sizes: Float[Tensor, " s"],
    errors: Float[Tensor, " s"],
    resampled: Float[Tensor, "d s"],
    *,
    top: float = 1.0,
    seed: int = 0,
    spread: float = SPREAD,
    forms: Sequence[CurveForm] = FORMS,
) -> LearningCurve:
    """Fit all forms, and weight each form by the inverse square of its relative error at held-out sizes."""
    fits = [FormFit.of(form, sizes, errors, resampled, top) for form in forms if form.n_free <= len(sizes)]
    fits.sort(key=lambda fit: fit.off)
    shares = torch.tensor([fit.off for fit in fits]).double().clamp(min=1e-6).pow(-2)
    shares = shares / shares.sum() if bool(shares.sum() > 0) else torch.full_like(shares, 1 / len(shares))
    generator, n_draws = torch.Generator().manual_seed(seed), len(resampled)
    which = torch.multinomial(shares, n_draws, replacement=True, generator=generator)
    for i, fit in enumerate(fits):  # a resample whose form failed uses the best form that did not
        other = torch.full_like(which, i)
        for j in reversed([j for j in range(len(fits)) if j != i]):
            other = torch.where(~fits[j].failed, j, other)
        which = torch.where((which == i) & fit.failed, other, which)
    tilt = spread * torch.randn(n_draws, generator=generator, dtype=torch.double)
    shared = tuple(replace(fit, share=float((which == i).double().mean())) for i, fit in enumerate(fits))
    return LearningCurve(sizes, errors, resampled, shared, which, tilt)


def held_out_errors(
    form: CurveForm, sizes: Float[Tensor, " s"], errors: Float[Tensor, " s"], top: float = 1.0
) -> Float[Tensor, " c"]:
    """Return the log errors of a form at sizes larger than those used for the fit."""
    off = [torch.zeros(0, dtype=errors.dtype)]
    for k in range(max(2, form.n_free), len(sizes)):
        found = form.fit(sizes[:k], errors[None, :k], relative(errors[:k]), top)
        said = form.predict(found, sizes[k:])[0].clamp(min=float(errors.min()) / 10)
        off.append(errors[k:].log() - said.log())
    return torch.cat(off)


def resample(
    right: Int[Tensor, "s r t"], groups: Int[Tensor, " t"], *, nested: bool, n_draws: int = 1000, seed: int = 0
) -> tuple[Float[Tensor, " s"], Float[Tensor, "d s"], Float[Tensor, "s r"]]:
    """Return the errors by size: measured, resampled, and by seed.

    Test pictures and seeds are drawn with replacement; groups of pictures stay together.
    The same pictures are drawn for all sizes. With nested training sets, the same seeds are drawn too.
    """
    n_sizes, n_seeds, n_test = right.shape
    generator = torch.Generator().manual_seed(seed)
    names = groups.unique(return_inverse=True)[1]
    n_groups = int(names.max()) + 1
    weight = counts(torch.randint(n_groups, (n_draws, n_groups), generator=generator), n_groups)[:, names]
    asked = (right >= 0).double()
    wrong = asked * (1 - right.clamp(min=0).double())
    seeds = torch.randint(n_seeds, (n_draws, 1 if nested else n_sizes, n_seeds), generator=generator)

    def errors(of: Tensor, by: Tensor) -> Tensor:
        """Return the error rates ``(resample, size)`` if pictures and seeds have the given weights."""
        bad, all_ = (torch.einsum("srt,dt->dsr", v, of) * by for v in (wrong, asked))
        return (bad.sum(2) + 0.5 * n_seeds) / (all_.sum(2) + n_seeds)

    every = errors(torch.ones(1, n_test, dtype=torch.double), torch.ones(1, 1, n_seeds, dtype=torch.double))[0]
    return every, errors(weight, counts(seeds, n_seeds)), wrong.sum(2) / asked.sum(2)
