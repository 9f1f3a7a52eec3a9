"""A preconditioned L-BFGS for linear models: ``min_W  C sum_i loss(x_i W) + 1/2 sum ridge W^2``, loss convex.

The first inverse Hessian of L-BFGS is usually a multiple of the identity. Here it is ``(a C X^T S X + 1)^-1``, the true
inverse Hessian when every sample is as uncertain as the average one; ``a`` is that average, taken anew each iteration.
``X^T S X`` is kept as its leading eigenvectors, found by random projection (Halko et al. 2011, arXiv 0909.4061) with a
fixed seed, and one number for the rest. Logits are linear in the step, so a line search costs no product with X: an
iteration is two.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Loss(Protocol):
    """A loss of the logits: its value, its derivative, and its mean second derivative."""

    per_class: bool

    def value(self, z: Tensor) -> float: ...
    def residual(self, z: Tensor) -> Tensor: ...
    def curvature(self, z: Tensor) -> float: ...


class Softmax:
    """``s_i (log sum_k exp z_ik - z_iy)``; one problem for all classes."""

    per_class = False

    def __init__(self, y: Tensor, n_classes: int, weight: Tensor) -> None:
        self.y, self.weight = y[:, None], weight[:, None]

    def value(self, z: Tensor) -> float:
        losses = z.logsumexp(1, keepdim=True) - z.gather(1, self.y)
        return float((losses * self.weight).double().sum())

    def residual(self, z: Tensor) -> Tensor:
        p = z.softmax(1).mul_(self.weight)
        return p.scatter_add_(1, self.y, -self.weight)

    def curvature(self, z: Tensor) -> float:
        p = z.softmax(1)
        spread = 1 - p.square().sum(1, keepdim=True)
        return float((spread * self.weight).sum() / self.weight.sum()) / z.shape[1]


class SquaredHinge:
    """``s_i sum_k max(0, 1 - t_ik z_ik)^2`` with t = +1 for the sample's class and -1 for the others."""

    per_class = True

    def __init__(self, y: Tensor, n_classes: int, weight: Tensor) -> None:
        self.sign = torch.full((len(y), n_classes), -1.0).scatter_(1, y[:, None], 1.0)
        self.weight = weight[:, None]

    def _slack(self, z: Tensor) -> Tensor:
        return (1 - self.sign * z).clamp_(min=0)

    def value(self, z: Tensor) -> float:
        return float((self._slack(z).square_() * self.weight).double().sum())

    def residual(self, z: Tensor) -> Tensor:
        return self._slack(z).mul_(self.sign).mul_(self.weight).mul_(-2)

    def curvature(self, z: Tensor) -> float:
        active = (self._slack(z) > 0).float() * self.weight
        return 2 * float(active.sum() / self.weight.sum()) / z.shape[1]


class _Pair(NamedTuple):
    """One remembered step, the change of the gradient along it, and their product (0 when of no use)."""

    step: Tensor
    change: Tensor
    rho: Tensor


Dot = Callable[[Tensor, Tensor], Tensor]

_MEMORY = 10
_MAX_ITER = 1000
_RANK = 96


class Minimum(NamedTuple):
    """Where :func:`minimise` stopped: the weights (d, k), the objective there, iterations, and whether it converged."""

    w: Tensor
    value: float
    n_iter: int
    converged: bool


def minimise(
    x: Float[Tensor, "n d"],
    loss: Loss,
    c: float,
    ridge: Float[Tensor, "d 1"],
    w: Float[Tensor, "d k"],
    sample_weight: Float[Tensor, " n"],
    tol: float,
) -> Minimum:
    """Minimise from ``w`` until the predicted decrease is at most ``tol`` times the objective."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(0) if loss.per_class else torch.dot(a.flatten(), b.flatten())[None]

    preconditioner = _inverse_hessian(x, sample_weight)
    z = x @ w
    residual = loss.residual(z)
    gradient = c * (x.T @ residual) + ridge * w
    pairs: deque[_Pair] = deque(maxlen=_MEMORY)
    value = math.inf
    for n_iter in range(_MAX_ITER):
        direction = _direction(gradient, preconditioner(c * loss.curvature(z)), pairs, dot)
        slope = dot(gradient, direction)
        value = c * loss.value(z) + 0.5 * float((ridge * w * w).double().sum())
        if -float(slope.sum()) <= 2 * tol * value:
            return Minimum(w, value, n_iter, True)
        penalty = dot(ridge * w, direction), dot(ridge * direction, direction)
        length, z, residual = _line_search(loss, c, z, x @ direction, slope, penalty, dot)
        step = length * direction
        w = w + step
        previous, gradient = gradient, c * (x.T @ residual) + ridge * w
        change = gradient - previous
        pairs.append(_Pair(step, change, _safe_inverse(dot(step, change))))
    return Minimum(w, value, _MAX_ITER, False)


def _safe_inverse(a: Tensor) -> Tensor:
    return torch.where(a > 0, 1 / a, torch.zeros_like(a))


def _inverse_hessian(x: Tensor, sample_weight: Tensor) -> Callable[[float], Callable[[Tensor], Tensor]]:
    """Scale → the product with ``(scale X^T S X + 1)^-1``; ``X^T S X`` is about ``U values U^T + rest (1 - U U^T)``."""
    rank = min(_RANK, x.shape[1])
    start = torch.randn(x.shape[1], rank, generator=torch.Generator().manual_seed(0))
    basis, _ = torch.linalg.qr(x.T @ (sample_weight[:, None] * (x @ start)))
    projected = x @ basis
    values, rotation = torch.linalg.eigh(projected.T @ (sample_weight[:, None] * projected))
    values = values.clamp(min=0)
    total = sample_weight @ x.square().sum(1)
    rest = (total - values.sum()).clamp(min=0) / max(x.shape[1] - rank, 1)
    vectors = basis @ rotation

    def inverse(scale: float) -> Callable[[Tensor], Tensor]:
        tail = 1 / (scale * rest + 1)
        lead = (1 / (scale * values + 1) - tail)[:, None]
        return lambda g: tail * g + vectors @ (lead * (vectors.T @ g))

    return inverse


def _direction(gradient: Tensor, inverse: Callable[[Tensor], Tensor], pairs: deque[_Pair], dot: Dot) -> Tensor:
    """The two-loop recursion (Nocedal 1980) around the preconditioner."""
    q, alphas = gradient.clone(), []
    for step, change, rho in reversed(pairs):
        alphas.append(rho * dot(step, q))
        q.addcmul_(alphas[-1], change, value=-1)
    q = inverse(q)
    if pairs:
        change, rho = pairs[-1].change, pairs[-1].rho
        gamma = _safe_inverse(rho * dot(change, inverse(change)))
        q *= torch.where(gamma > 0, gamma, torch.ones_like(gamma))
    for (step, change, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q.addcmul_(alpha - rho * dot(change, q), step)
    return -q


def _line_search(
    loss: Loss, c: float, z: Tensor, zd: Tensor, slope: Tensor, penalty: tuple[Tensor, Tensor], dot: Dot
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the derivative along the direction is nearly 0, each class its own length if the loss says so; the
    derivative alone is exact where float32 values of the objective no longer differ.
    """
    low, slope_low = torch.zeros_like(slope), slope
    high, slope_high = torch.full_like(slope, math.inf), torch.zeros_like(slope)
    t = torch.ones_like(slope)
    for _ in range(12):
        z_t = z + t * zd
        residual = loss.residual(z_t)
        along = c * dot(residual, zd) + penalty[0] + t * penalty[1]
        open_ = (along < 0.5 * slope) | (along > -0.2 * slope)
        if not bool(open_.any()):
            break
        down = along < 0
        low, slope_low = torch.where(down, t, low), torch.where(down, along, slope_low)
        high, slope_high = torch.where(down, high, t), torch.where(down, slope_high, along)
        secant = (low * slope_high - high * slope_low) / (slope_high - slope_low)
        margin = 0.1 * (high - low)
        secant = torch.minimum(torch.maximum(secant, low + margin), high - margin)
        t = torch.where(open_, torch.where(high.isinf(), 2 * t, secant), t)
    else:
        z_t = z + t * zd
        residual = loss.residual(z_t)
    return t, z_t, residual
