"""A learning curve with its doubt: which form foretells larger sizes, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .curve_forms import FORMS, CurveForm, relative

SPREAD = 0.03
"""By how much a curve leaves its form in one doubling, relative to the error: so that 90 % intervals hold on half of
72 public curves; reported on the other half and on other data (docs/scaling.md, benchmarks/learning_curves.py)."""


@dataclass(frozen=True)
class FormFit:
    """One form on one curve.

    Attributes:
        form: of the curve.
        found: its numbers on all that was measured.
        draws: the same on each resampled curve.
        failed: which of those are no fits.
        n_cuts: how often it was asked for larger sizes than it was fitted on.
        off: root mean square of its relative errors there; infinite where it never was.
        share: of the draws that go by this form.
    """

    form: CurveForm
    found: Float[Tensor, "1 p"]
    draws: Float[Tensor, "d p"]
    failed: Bool[Tensor, " d"]
    n_cuts: int
    off: float
    share: float = 0.0


@dataclass(frozen=True)
class LearningCurve:
    """Errors by size, with everything that is needed to say what more pictures would bring.

    Attributes:
        sizes: pictures learnt from, rising.
        errors: measured.
        resampled: the same on each resampled set of seeds, subsets and test pictures.
        forms: fitted, the one that foretells larger sizes best first.
        which: by which form each draw goes.
        tilt: logarithm of what each draw's error is multiplied by, per doubling beyond what was measured.
    """

    sizes: Float[Tensor, " s"]
    errors: Float[Tensor, " s"]
    resampled: Float[Tensor, "d s"]
    forms: tuple[FormFit, ...]
    which: Tensor
    tilt: Float[Tensor, " d"]

    @property
    def form(self) -> FormFit:
        """The one that foretells larger sizes best."""
        return self.forms[0]

    def at(self, n: Float[Tensor, " m"]) -> Float[Tensor, "d m"]:
        """Errors at these sizes, one row a draw: by the draw's form, and off by its tilt beyond what was measured."""
        by_form = torch.stack([fit.form.predict(fit.draws, n) for fit in self.forms])
        doublings = (n / self.sizes[-1]).log2().clamp(min=0)
        drawn = by_form[self.which, torch.arange(len(self.which))]
        return (drawn * (self.tilt[:, None] * doublings).exp()).clamp(0, 1)

    def crossing(self, error: float, most: float, points: int = 600) -> Float[Tensor, " d"]:
        """The size at which each draw's error falls to this; infinite where it does not up to ``most``."""
        n = torch.linspace(float(self.sizes[0].log2()), float(torch.tensor(most).log2()), points).double().exp2()
        below = self.at(n) <= error
        first = below.double().argmax(1)
        return torch.where(below.any(1), n[first], torch.inf)

    def floors(self) -> Float[Tensor, " d"]:
        """What no number of pictures goes below, by the best form that has such a floor."""
        fit = next(f for f in self.forms if f.form.saturates)
        found = fit.form.floor(fit.draws)
        return found if bool(fit.failed.all()) else found[~fit.failed]

    def slopes(self) -> Float[Tensor, " d"]:
        """Points of accuracy that a doubling brought, over the sizes measured, one a draw."""
        return next(f.draws[:, 1] for f in self.forms if not f.form.saturates)


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
    """Fit every form, ask each for sizes it was not fitted on, and let them share the draws by how well it did.

    A form's share is ``1 / off²``: of relative errors at held-out larger sizes, cut by cut. None is chosen by how well
    it fits what it was fitted on.
    """
    fits = [_fitted(form, sizes, errors, resampled, top) for form in forms if form.n_free <= len(sizes)]
    fits.sort(key=lambda fit: fit.off)
    shares = torch.tensor([fit.off for fit in fits]).double().clamp(min=1e-6).pow(-2)
    if not bool(shares.sum() > 0):
        shares = torch.ones_like(shares)
    shares = shares / shares.sum()
    generator = torch.Generator().manual_seed(seed)
    n_draws = len(resampled)
    which = torch.multinomial(shares, n_draws, replacement=True, generator=generator)
    for i, fit in enumerate(fits):  # a draw whose own form found nothing goes by one that did
        which = torch.where((which == i) & fit.failed, _other(fits, i), which)
    tilt = spread * torch.randn(n_draws, generator=generator, dtype=torch.double)
    shared = [
        FormFit(f.form, f.found, f.draws, f.failed, f.n_cuts, f.off, float((which == i).double().mean()))
        for i, f in enumerate(fits)
    ]
    return LearningCurve(sizes, errors, resampled, tuple(shared), which, tilt)


def _other(fits: Sequence[FormFit], i: int) -> Tensor:
    """Of each draw the best other form that was fitted, or the same where there is none."""
    found = torch.full_like(fits[i].failed, i, dtype=torch.long)
    for j in reversed([j for j in range(len(fits)) if j != i]):
        found = torch.where(~fits[j].failed, j, found)
    return found


def _fitted(form: CurveForm, sizes: Tensor, errors: Tensor, resampled: Tensor, top: float) -> FormFit:
    weight = relative(errors)
    off = held_out_errors(form, sizes, errors, top)
    draws = form.fit(sizes, resampled, weight, top)
    return FormFit(
        form,
        form.fit(sizes, errors[None], weight, top),
        draws,
        form.failed(draws),
        len(off),
        float(off.square().mean().sqrt()) if len(off) else float("inf"),
    )


def held_out_errors(
    form: CurveForm, sizes: Float[Tensor, " s"], errors: Float[Tensor, " s"], top: float = 1.0
) -> Float[Tensor, " c"]:
    """Relative errors (of logarithms) at sizes larger than those fitted on.

    Every cut counts that leaves a form as many sizes as it has numbers, and at least two.
    """
    off = [torch.zeros(0, dtype=errors.dtype)]
    for k in range(max(2, form.n_free), len(sizes)):
        found = form.fit(sizes[:k], errors[None, :k], relative(errors[:k]), top)
        said = form.predict(found, sizes[k:])[0].clamp(min=float(errors.min()) / 10)
        off.append(errors[k:].log() - said.log())
    return torch.cat(off)
