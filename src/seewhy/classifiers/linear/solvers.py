"""Fast linear classifiers on frozen features: multinomial logistic regression and a squared-hinge SVM.

Both minimise

    1/2 |W|^2 + C sum_i s_i loss(y_i, W x_i + b)

over the weights ``W`` and biases ``b``. ``x_i`` is sample ``i``, ``y_i`` its class and ``s_i`` its weight. The solver
is L-BFGS with a low-rank initial inverse Hessian (Halko et al. 2011, arXiv 0909.4061).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import DataError, InputError

Solver = Literal["logistic", "svm"]
Dot = Callable[[Tensor, Tensor], Tensor]
_MEMORY = 10
_MAX_ITER = 1000
_LEAST_PART = 1e-3
_RANK = 96


class Softmax:
    """The multinomial log-loss, with an unpenalised bias.

        s_i (log sum_k exp z_ik - z_iy)

    ``s_i`` is the weight of sample ``i``, ``z_ik`` its logit for class ``k``, and ``y`` its class.
    """

    per_class = False

    def __init__(self, y: Tensor, n_classes: int, weight: Tensor) -> None:
        self.y, self.n_classes, self.weight = y[:, None], n_classes, weight[:, None]

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
    """The one-vs-rest squared hinge loss, with a penalised bias.

        s_i sum_k max(0, 1 - t_ik z_ik)^2

    ``s_i`` is the weight of sample ``i``, ``z_ik`` its logit for class ``k``, and ``t_ik`` is +1 for its class and -1
    for other classes.
    """

    per_class = True

    def __init__(self, y: Tensor, n_classes: int, weight: Tensor) -> None:
        self.sign = torch.full((len(y), n_classes), -1.0).scatter_(1, y[:, None], 1.0)
        self.n_classes, self.weight = n_classes, weight[:, None]

    def _slack(self, z: Tensor) -> Tensor:
        return (1 - self.sign * z).clamp_(min=0)

    def value(self, z: Tensor) -> float:
        return float((self._slack(z).square_() * self.weight).double().sum())

    def residual(self, z: Tensor) -> Tensor:
        return self._slack(z).mul_(self.sign).mul_(self.weight).mul_(-2)

    def curvature(self, z: Tensor) -> float:
        active = (self._slack(z) > 0).float() * self.weight
        return 2 * float(active.sum() / self.weight.sum()) / z.shape[1]


Loss = Softmax | SquaredHinge


class LinearFit(NamedTuple):
    weight: Tensor
    bias: Tensor
    loss: float
    n_iter: int
    converged: bool

    def logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        return x @ self.weight.T + self.bias


LOSSES: dict[Solver, type[Loss]] = {"logistic": Softmax, "svm": SquaredHinge}


def fit_linear(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    n_classes: int,
    c: float = 1.0,
    *,
    solver: Solver = "logistic",
    sample_weight: Float[Tensor, " n"] | None = None,
    warm_start: LinearFit | None = None,
    tol: float = 1e-6,
) -> LinearFit:
    """Fit multinomial logistic regression, or a one-vs-rest SVM with ``solver="svm"``.

    The objectives are those of scikit-learn's ``LogisticRegression(C=c)``, whose bias is unpenalised, and of
    liblinear's primal L2-SVM, whose bias is penalised (:class:`Softmax`, :class:`SquaredHinge`). The solver stops when
    the predicted decrease is at most ``tol`` times the objective. With a large C, scikit-learn's default stopping rule
    can leave the objective twice as high.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> fit_linear(x, torch.tensor([0, 1]), 2).weight.flatten().mul(100).round().int().tolist()
        [-52, 52]
    """
    s = _check(x, y, n_classes, c, sample_weight)
    x, loss = x.float(), LOSSES[solver](y, n_classes, s)
    mean = torch.zeros(x.shape[1]) if loss.per_class else (s @ x) / s.sum()
    return _solve(x - mean, mean, loss, c, warm_start, tol)


def _check(x: Tensor, y: Tensor, n_classes: int, c: float, sample_weight: Tensor | None) -> Tensor:
    if not (0 < c < math.inf):
        raise InputError(f"C must be a positive finite number, got {c}.")
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise DataError(f"Features must have shape (n, d) and labels (n,), got {tuple(x.shape)} and {tuple(y.shape)}.")
    bad = (~torch.isfinite(x).all(1)).nonzero().flatten().tolist()
    if bad:
        rows = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise DataError(
            f"Features must be finite, got NaN or infinity in row {rows}. Remove these rows or encode them again."
        )
    present = y.unique().tolist()
    if present and not 0 <= present[0] <= present[-1] < n_classes:
        raise DataError(
            f"Labels must be from 0 to {n_classes - 1}, got {present[0]} to {present[-1]}. Number the "
            "classes from 0, or raise n_classes."
        )
    if len(present) < 2:
        raise DataError(f"The samples must have at least 2 classes, got {len(present)}.")
    if sample_weight is None:
        return torch.ones(len(x))
    if sample_weight.shape != y.shape or not bool(torch.isfinite(sample_weight).all() and (sample_weight >= 0).all()):
        raise DataError(
            f"`sample_weight` must be {len(y)} finite numbers of at least 0, got shape "
            f"{tuple(sample_weight.shape)} or a negative or non-finite value."
        )
    return sample_weight.float()


def _solve(x: Tensor, mean: Tensor, loss: Loss, c: float, warm: LinearFit | None, tol: float) -> LinearFit:
    """Minimise the loss in the span of the samples if there are fewer samples than features."""
    basis = None
    if x.shape[0] < x.shape[1]:
        basis, r = torch.linalg.qr(x.T)
        x = r.T.contiguous()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    ridge = torch.ones(x.shape[1], 1)
    ridge[-1] = float(loss.per_class)
    w = torch.zeros(x.shape[1], loss.n_classes)
    if warm is not None:
        start = warm.weight.T if basis is None else basis.T @ warm.weight.T
        w = torch.cat([start, (warm.bias + warm.weight @ mean)[None]])
    w, value, n_iter, converged = _minimise(x, loss, c, ridge, w, tol)
    weight = (w[:-1] if basis is None else basis @ w[:-1]).T.contiguous()
    return LinearFit(weight, w[-1] - weight @ mean, value, n_iter, converged)


def _minimise(x: Tensor, loss: Loss, c: float, ridge: Tensor, w: Tensor, tol: float) -> tuple[Tensor, float, int, bool]:
    """Run L-BFGS from ``w``; return the weights, the objective, the number of iterations, and whether it converged."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(0) if loss.per_class else torch.dot(a.flatten(), b.flatten())[None]

    preconditioner = _inverse_hessian(x, loss.weight)
    z = x @ w
    residual = loss.residual(z)
    gradient = c * (x.T @ residual) + ridge * w
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_MEMORY)
    value = math.inf
    for n_iter in range(_MAX_ITER):
        direction = _direction(gradient, preconditioner(c * loss.curvature(z)), pairs, dot)
        slope = dot(gradient, direction)
        size = 0.5 * float((ridge * w * w).double().sum())
        value = c * loss.value(z) + size
        # With a small C the loss is nearly constant, and only the size of the weights tells how near the end is.
        if -float(slope.sum()) <= 2 * tol * max(min(value, size), _LEAST_PART * value):
            return w, value, n_iter, True
        penalty = dot(ridge * w, direction), dot(ridge * direction, direction)
        length, z, residual = _line_search(loss, c, z, x @ direction, slope, penalty, dot)
        step = length * direction
        w = w + step
        previous, gradient = gradient, c * (x.T @ residual) + ridge * w
        change = gradient - previous
        pairs.append((step, change, _safe_inverse(dot(step, change))))
    return w, value, _MAX_ITER, False


def _safe_inverse(a: Tensor) -> Tensor:
    return torch.where(a > 0, 1 / a, torch.zeros_like(a))


def _inverse_hessian(x: Tensor, weight: Tensor) -> Callable[[float], Callable[[Tensor], Tensor]]:
    """Return a function from ``scale`` to a function that multiplies by ``(scale X^T S X + 1)^-1``."""
    rank = min(_RANK, x.shape[1])
    start = torch.randn(x.shape[1], rank, generator=torch.Generator().manual_seed(0))
    basis, _ = torch.linalg.qr(x.T @ (weight * (x @ start)))
    projected = x @ basis
    values, rotation = torch.linalg.eigh(projected.T @ (weight * projected))
    values = values.clamp(min=0)
    total = weight[:, 0] @ x.square().sum(1)
    rest = (total - values.sum()).clamp(min=0) / max(x.shape[1] - rank, 1)
    vectors = basis @ rotation

    def inverse(scale: float) -> Callable[[Tensor], Tensor]:
        tail = 1 / (scale * rest + 1)
        lead = (1 / (scale * values + 1) - tail)[:, None]
        return lambda g: tail * g + vectors @ (lead * (vectors.T @ g))

    return inverse


def _direction(
    gradient: Tensor, inverse: Callable[[Tensor], Tensor], pairs: deque[tuple[Tensor, Tensor, Tensor]], dot: Dot
) -> Tensor:
    """Return the L-BFGS direction by the two-loop recursion (Nocedal 1980)."""
    q, alphas = gradient.clone(), []
    for step, change, rho in reversed(pairs):
        alphas.append(rho * dot(step, q))
        q.addcmul_(alphas[-1], change, value=-1)
    q = inverse(q)
    if pairs:
        _, change, rho = pairs[-1]
        gamma = _safe_inverse(rho * dot(change, inverse(change)))
        q *= torch.where(gamma > 0, gamma, torch.ones_like(gamma))
    for (step, change, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q.addcmul_(alpha - rho * dot(change, q), step)
    return -q


def _line_search(
    loss: Loss, c: float, z: Tensor, zd: Tensor, slope: Tensor, penalty: tuple[Tensor, Tensor], dot: Dot
) -> tuple[Tensor, Tensor, Tensor]:
    """Search for the step length at which the directional derivative is nearly 0."""
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


def balanced_weight(y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return scikit-learn's ``class_weight="balanced"`` sample weights, ``n / (k n_y)``."""
    _, position, count = y.unique(return_inverse=True, return_counts=True)
    return len(y) / (len(count) * count.float())[position]


def share_weight(y: Int[Tensor, " n"], shares: Float[Tensor, " k"]) -> Float[Tensor, " n"]:
    """Return sample weights with mean 1 that give each class its share of the total weight."""
    weight = shares[y] / y.bincount(minlength=len(shares))[y]
    return weight / weight.mean()


def fit_temperature(logits: Float[Tensor, "n k"], y: Int[Tensor, " n"]) -> float:
    """Return the temperature ``T``, between 0.01 and 100, that minimises the log-loss of ``softmax(logits / T)``.

    This is temperature scaling (Guo et al. 2017, arXiv 1706.04599). Where we differ: each sample also counts as an
    example of its second-best class, with weight ``1 / (n + 2)``. The temperature is then finite even if all ``n``
    predictions are right.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]] * 4)
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # 2 / log 2: right in 4 of 6
        2.8854
    """
    if not len(y) or not bool(torch.isfinite(logits).all()):
        raise DataError("`logits` must be finite and of shape (n, k) with n > 0. Check the validation split.")
    z = logits.double()
    own = z.gather(1, y[:, None])
    truth = own.mean()
    if z.shape[1] > 1:
        doubt = 1 / (len(y) + 2)
        truth = (1 - doubt) * truth + doubt * z.scatter(1, y[:, None], -math.inf).amax(1).mean()
    low, high = math.log(0.01), math.log(100.0)
    for _ in range(60):
        middle = (low + high) / 2
        slope = ((z * math.exp(middle)).softmax(1) * z).sum(1).mean() - truth
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)
