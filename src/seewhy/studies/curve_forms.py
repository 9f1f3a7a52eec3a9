"""Forms of a learning curve: what the error may be as a function of the number of pictures learnt from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

EXPONENTS = (0.01, 3.0)
"""Between which exponents lie."""
LEAST = 1e-9


@dataclass(frozen=True)
class CurveForm(ABC):
    """One form, fitted to many curves at once by least squares of relative errors.

    Exponents and limits are searched on a grid that is made finer around the best point three times; what is linear,
    given them, is solved (variable projection), so that there is no start to be chosen and none that fails.

    Class attributes:
        name: of the form.
        formula: with e the error and n the pictures.
        n_free: numbers that are fitted, which is the least number of sizes.
        saturates: whether it has a floor.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str]
    n_free: ClassVar[int]
    saturates: ClassVar[bool] = True

    @abstractmethod
    def fit(
        self, n: Float[Tensor, " s"], e: Float[Tensor, "b s"], weight: Float[Tensor, " s"], top: float = 1.0
    ) -> Float[Tensor, "b p"]:
        """Numbers of the form, one row a curve."""

    @abstractmethod
    def predict(self, found: Float[Tensor, "*b p"], n: Float[Tensor, " m"]) -> Float[Tensor, "*b m"]:
        """Errors at these sizes, from 0 to 1."""

    @abstractmethod
    def floor(self, found: Float[Tensor, "b p"]) -> Float[Tensor, " b"]:
        """The error that no number of pictures goes below."""

    @abstractmethod
    def failed(self, found: Float[Tensor, "b p"]) -> Tensor:
        """Which fits are none: numbers that are not finite, a curve that does not fall, an exponent at its bound."""


def relative(e: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
    """Weights by which squared errors are relative ones, of mean 1."""
    weight = e.clamp(min=LEAST).pow(-2)
    return weight / weight.mean()


@dataclass(frozen=True)
class LogLinear(CurveForm):
    """Every doubling takes as much from the error as the one before; not below 0 (Sun et al. 2017, figure 4).

    Example:
        >>> n, e = torch.tensor([100.0, 200, 400]).double(), torch.tensor([[0.5, 0.4, 0.3]]).double()
        >>> [round(v, 3) for v in LogLinear().fit(n, e, torch.ones(3).double())[0].tolist()]
        [1.164, 0.1]
    """

    name: ClassVar[str] = "log-linear"
    formula: ClassVar[str] = "e = a − b log₂ n"
    paper: ClassVar[str] = "Sun et al. 2017, arXiv:1707.02968"
    n_free: ClassVar[int] = 2
    saturates: ClassVar[bool] = False

    def fit(self, n: Tensor, e: Tensor, weight: Tensor, top: float = 1.0) -> Tensor:
        a, b = _line(n.log2().expand_as(e), e, weight)
        return torch.stack([a, -b], 1)

    def predict(self, found: Tensor, n: Tensor) -> Tensor:
        return (found[..., :1] - found[..., 1:2] * n.log2()).clamp(0, 1)

    def floor(self, found: Tensor) -> Tensor:
        return torch.zeros(len(found), dtype=found.dtype)

    def failed(self, found: Tensor) -> Tensor:
        return ~(found.isfinite().all(1) & (found[:, 1] > 0))


@dataclass(frozen=True)
class PowerLaw(CurveForm):
    """A power of the number of pictures above a floor (Hestness et al. 2017, arXiv 1712.00409; M2 of Alabdulmohsin).

    Example:
        >>> n = torch.tensor([100.0, 200, 400, 800]).double()
        >>> found = PowerLaw().fit(n, (0.1 + 3 * n**-0.5)[None], torch.ones(4).double())
        >>> [round(v, 2) for v in found[0].tolist()]
        [0.1, 3.0, 0.5]
    """

    name: ClassVar[str] = "power law with floor"
    formula: ClassVar[str] = "e = E + A n^−α"
    paper: ClassVar[str] = "Hestness et al. 2017, arXiv:1712.00409"
    n_free: ClassVar[int] = 3

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
        """Floor and factor for these exponents ``(b, g)``, neither below 0, and how far off the curve then is."""
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

    def floor(self, found: Tensor) -> Tensor:
        return found[:, 0]

    def failed(self, found: Tensor) -> Tensor:
        inside = (found[:, 2] > EXPONENTS[0] * 1.001) & (found[:, 2] < EXPONENTS[1] * 0.999)
        return ~(found.isfinite().all(1) & (found[:, 1] > 0) & inside)


@dataclass(frozen=True)
class Sigmoid(CurveForm):
    """From guessing to a floor, a power law between (M4 of Alabdulmohsin et al. 2022, arXiv 2209.06640, eq. 4).

    The authors descend on logarithms from one start; here limits and α are searched, and judged by the curve they give.

    Example:
        >>> n = torch.tensor([100.0, 200, 400, 800, 1600]).double()
        >>> found = torch.tensor([[0.1, 0.9, 1.0, 50.0, 0.8]]).double()
        >>> e = Sigmoid().predict(found, n)
        >>> again = Sigmoid().predict(Sigmoid().fit(n, e, relative(e[0]), 0.9), n)
        >>> round(float((again - e).abs().max()), 2)
        0.0
    """

    name: ClassVar[str] = "sigmoid"
    formula: ClassVar[str] = "(e − E) / (e₀ − e)^α = β n^−c"
    paper: ClassVar[str] = "Alabdulmohsin et al. 2022, arXiv:2209.06640"
    n_free: ClassVar[int] = 4

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
        """All numbers for these limits and α ``(b, g, 3)``, and how far off the curve then is."""
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
        low = torch.zeros_like(right)
        high = (start - floor).clamp(min=0).expand_as(right)
        whole = high
        for _ in range(22):
            middle = (low + high) / 2
            above = middle > right * (whole - middle) ** alpha
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (floor + (low + high) / 2).clamp(0, 1)

    def floor(self, found: Tensor) -> Tensor:
        return found[:, 0]

    def failed(self, found: Tensor) -> Tensor:
        inside = (found[:, 4] > EXPONENTS[0] * 1.001) & (found[:, 4] < EXPONENTS[1] * 0.999)
        return ~(found.isfinite().all(1) & inside)


def _line(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Offset and slope of the weighted line through the last axis."""
    share = weight / weight.sum()
    mean_x, mean_y = (share * x).sum(-1, keepdim=True), (share * y).sum(-1, keepdim=True)
    slope = (share * (x - mean_x) * (y - mean_y)).sum(-1) / (share * (x - mean_x).square()).sum(-1).clamp(min=1e-30)
    return mean_y[..., 0] - slope * mean_x[..., 0], slope


FORMS: tuple[CurveForm, ...] = (LogLinear(), PowerLaw(), Sigmoid())
"""Among which the study chooses, by how well they extrapolate."""
