"""Choice of the regularisation C on held-out pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...errors import DataError
from .solvers import LinearFit, Solver, fit_linear, fit_temperature

DEFAULT_GRID = tuple(10.0 ** (e / 2) for e in range(-4, 7))
_NEAR_TIE = 0.005
_PATIENCE = 2
_TOL = 1e-3
N_CHOOSING = 200
"""Number of held-out pictures on which C is chosen at least, if there are so many."""


class PathPoint(NamedTuple):
    """The results of one C on held-out pictures, in all and of each; losses are computed after temperature scaling."""

    c: float
    accuracy: float
    log_loss: float
    temperature: float
    wrong: Float[Tensor, " m"]
    losses: Float[Tensor, " m"]


class CPath(NamedTuple):
    """The results of every C, the best result with its fit in the last fold, and the latest fit of every fold."""

    points: tuple[PathPoint, ...]
    best: PathPoint
    fit: LinearFit
    latest: tuple[LinearFit, ...]


Weigh = Callable[[Tensor], Tensor | None]


class _Round:
    """The training rows, held-out rows and latest fit of one fold."""

    def __init__(self, x: Tensor, y: Tensor, groups: Tensor, out: Tensor, asked: Tensor, weigh: Weigh) -> None:
        # Rows are taken anew at every step, since a copy a fold would not fit into memory.
        self.x, self.y, self.out, self.weigh = x, y, out, weigh
        self.asked, self.groups = out & asked, groups[out & asked]
        self.truth = _by_picture(y[self.asked, None].double(), self.groups)[:, 0].long()
        self.fitted: LinearFit | None = None

    def step(self, solver: Solver, n_classes: int, c: float) -> Tensor:
        x, y = self.x[~self.out], self.y[~self.out]
        self.fitted = fit_linear(
            x, y, n_classes, c, solver=solver, sample_weight=self.weigh(y), warm_start=self.fitted, tol=_TOL
        )
        return _by_picture(self.fitted.logits(self.x[self.asked]), self.groups)


def choosing_folds(fold: Int[Tensor, " n"], pictures: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return the folds to choose C on: all if pictures are few, otherwise enough to hold out ``N_CHOOSING`` pictures.

    The other folds become -1.
    """
    held = [len(pictures[fold == f].unique()) for f in range(int(fold.max()) + 1)]
    n = next((f for f in range(2, len(held)) if sum(held[:f]) >= N_CHOOSING), len(held))
    return torch.where(fold < n, fold, -1)


def c_path(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    n_classes: int,
    fold: Int[Tensor, " n"],
    *,
    usual: float | None = None,
    groups: Int[Tensor, " n"] | None = None,
    asked: Bool[Tensor, " n"] | None = None,
    grid: Sequence[float] = DEFAULT_GRID,
    solver: Solver = "logistic",
    weigh: Weigh = lambda y: None,
) -> CPath:
    """Evaluate every C on held-out pictures, from the strongest penalty to the weakest, and choose one.

    A picture's logits are averaged over its rows. Of the values that are as good as the best within random error, the
    nearest to ``usual`` is chosen (the one-standard-error rule); by default, that of the lowest log-loss. As good are
    values whose accuracy is within two standard errors, or half a percent, of the highest, and whose log-loss is
    within one standard error of the lowest of these. The errors are of paired differences. With ``m`` pictures per
    class, the log-loss may also be ``(2 / m)³`` higher, because a fold without one of two pictures says little of a
    fit on both. The search stops early if two successive values of C do not improve the accuracy or, by at least 1 %,
    the log-loss, and either ``usual`` is reached or neither of the two is as good as the best.
    """
    groups = torch.arange(len(y)) if groups is None else groups
    numbers = [f for f in fold.unique().tolist() if f >= 0]
    _, group = groups.unique(return_inverse=True)
    home = torch.zeros(int(group.max()) + 1, dtype=fold.dtype).scatter_(0, group, fold)
    if not numbers or not grid or bool((home[group] != fold).any()):
        raise DataError(
            "`fold` must have numbers from 0 without gaps, and the same number for all rows of a picture. `grid` "
            "must have at least one value of C."
        )
    asked = torch.ones_like(y, dtype=torch.bool) if asked is None else asked
    rounds = [_Round(x, y, groups, fold == f, asked, weigh) for f in numbers]
    truth = torch.cat([r.truth for r in rounds])
    slack = (2 * n_classes / len(home)) ** 3
    points: list[PathPoint] = []
    fits: list[LinearFit | None] = []
    for c in sorted(grid):
        logits = torch.cat([r.step(solver, n_classes, c) for r in rounds])
        temperature = fit_temperature(logits, truth)
        losses = torch.nn.functional.cross_entropy(logits / temperature, truth, reduction="none").double()
        wrong = (logits.argmax(1) != truth).double()
        points.append(PathPoint(c, 1 - float(wrong.mean()), float(losses.mean()), temperature, wrong, losses))
        fits.append(rounds[-1].fitted)
        beyond = c >= (usual or 0) or not set(_good_enough(points, slack)) & {len(points) - 1, len(points) - _PATIENCE}
        if beyond and _stalled(points):
            break
    good = _good_enough(points, slack)
    best = min(good, key=lambda i: abs(math.log(points[i].c / usual)) if usual else points[i].log_loss)
    latest = tuple(cast(LinearFit, r.fitted) for r in rounds)
    return CPath(tuple(points), points[best], cast(LinearFit, fits[best]), latest)


def _good_enough(points: Sequence[PathPoint], slack: float) -> list[int]:
    """Return the indices of the values of C that may be chosen; see :func:`c_path`."""
    top = min(points, key=lambda p: (float(p.wrong.mean()), p.log_loss))
    near = [i for i, p in enumerate(points) if _close(p.wrong, top.wrong, 2, _NEAR_TIE)]
    best = min((points[i] for i in near), key=lambda p: p.log_loss)
    return [i for i in near if _close(points[i].losses, best.losses, 1, slack * best.log_loss)]


def _close(values: Tensor, best: Tensor, n_errors: float, least: float) -> bool:
    """Return whether the mean exceeds that of ``best`` by at most so many standard errors of the difference."""
    more = values - best
    error = float(more.std(correction=0)) / math.sqrt(len(more))
    return float(more.mean()) <= max(n_errors * error, least) + 1e-12


def _stalled(points: Sequence[PathPoint]) -> bool:
    before, last = points[:-_PATIENCE], points[-_PATIENCE:]
    first = points[0].log_loss
    if not before or all(abs(p.log_loss - first) < 0.01 * first for p in last):
        return False
    accuracy, log_loss = max(p.accuracy for p in before), min(p.log_loss for p in before)
    return all(p.accuracy <= accuracy and p.log_loss > 0.99 * log_loss for p in last)


def _by_picture(rows: Tensor, groups: Tensor) -> Tensor:
    _, group, count = groups.unique(return_inverse=True, return_counts=True)
    return torch.zeros(len(count), rows.shape[1], dtype=rows.dtype).index_add_(0, group, rows) / count[:, None]
