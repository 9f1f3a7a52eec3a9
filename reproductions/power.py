"""How large an effect a test of this size would have shown: what was measured, with an effect planted in.

A rule that calls a difference shown where its whole interval lies above 0 misses small differences in few pictures or
few draws. Here the measured differences lose their mean, an effect is put in its place, as many are drawn anew again
and again, and the rule is asked each time. How often it says "shown" is its power; below :data:`ENOUGH` a difference
that is not shown may be there all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from claims import Interval, Verdict, judged, lead
from jaxtyping import Float
from torch import Tensor

from seewhy.studies.bootstrap import paired_means

ENOUGH = 0.8
"""Power from which on a difference that is not shown counts against the paper."""
YARDSTICK = 0.1
"""Of the other arm's errors: the effect that is planted where no figure of the paper could be verified."""
FEW = 20
"""Differences below which their spread alone is kept: a resample of three is often one of them three times."""

Low = Callable[[Float[Tensor, "t n"]], Float[Tensor, " t"]]
"""The lower end of a rule's interval in each trial; a constant added to a trial is added to it."""


@dataclass(frozen=True)
class Power:
    """What a test of one size can show.

    Attributes:
        effect: that was planted.
        power: how often it was shown, 0 to 1.
        smallest: the least effect that is shown in 80 % of the trials.
        n: differences in each trial.
    """

    effect: float
    power: float
    smallest: float
    n: int

    @property
    def enough(self) -> bool:
        """Whether the planted effect is shown often enough for its absence to say something."""
        return self.power >= ENOUGH

    def __str__(self) -> str:
        return (
            f"an effect of {self.effect:.3f} would be shown in {self.power:.0%} of such tests; "
            f"the smallest shown in {ENOUGH:.0%} of them is {self.smallest:.3f}"
        )

    def rounded(self) -> dict[str, float]:
        """For the JSON."""
        return {"effect": round(self.effect, 4), "power": round(self.power, 3), "smallest": round(self.smallest, 4)}


def power(
    differences: Sequence[float], effect: float, low: Low, *, n: int | None = None, trials: int = 2000, seed: int = 0
) -> Power:
    """How often a rule would call an effect shown, in differences that scatter as the measured ones do.

    Args:
        differences: measured, of a picture or a draw each; two at least.
        effect: planted: the paper's, carried over to this scale.
        low: the rule, :func:`over_draws` or :func:`over_pictures`.
        n: differences in a trial; left out, as many as were measured.
        trials: tests that are made up.
        seed: of what is drawn.

    Example:
        >>> few = power([0.01, 0.05, -0.03], 0.02, over_draws)
        >>> few.enough, few.smallest > 0.1
        (False, True)
    """
    measured = torch.tensor(differences, dtype=torch.double)
    if len(measured) < 2:
        raise ValueError(f"{len(measured)} differences were given. Expected two or more: one has no spread.")
    draw, size = torch.Generator().manual_seed(seed), n or len(measured)
    scatter = (measured - measured.mean()) * (len(measured) / (len(measured) - 1)) ** 0.5
    if len(measured) < FEW:
        noise = measured.std() * torch.randn(trials, size, generator=draw, dtype=torch.double)
    else:
        noise = scatter[torch.randint(len(measured), (trials, size), generator=draw)]
    below = -low(noise)
    return Power(effect, float((below < effect).double().mean()), float(below.quantile(ENOUGH)), size)


def over_draws(values: Float[Tensor, "t n"]) -> Float[Tensor, " t"]:
    """The lower end of Student's 95 % interval: the rule of :func:`interval`."""
    return values.mean(1) - student(values.shape[1]) * values.std(1) / values.shape[1] ** 0.5


def over_pictures(values: Float[Tensor, "t n"]) -> Float[Tensor, " t"]:
    """The lower end of the 95 % interval of resampled pictures: the rule of ``claims.lead``."""
    parts = values.split(100)
    return torch.cat([paired_means(part.T).draws.quantile(0.025, 0) for part in parts])


def student(n: int) -> float:
    """Student's t for 95 %, two sides, of ``n`` values.

    >>> round(student(3), 3), round(student(8), 3)
    (4.303, 2.365)
    """
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1))


def interval(values: Sequence[float]) -> Interval:
    """The mean over draws, with Student's 95 % interval; of one draw it has no end.

    >>> print(interval([0.1, 0.2, 0.3]))
    0.200 (-0.048 to 0.448)
    """
    each = torch.tensor(values, dtype=torch.double)
    if len(each) < 2:
        return Interval(float(each.mean()), float("-inf"), float("inf"))
    half = student(len(each)) * float(each.std()) / len(each) ** 0.5
    return Interval(float(each.mean()), float(each.mean()) - half, float(each.mean()) + half)


@dataclass(frozen=True)
class Compared:
    """One arm beside another, of which it should make fewer errors.

    Attributes:
        means: of both.
        found: the difference.
        power: of this test, with a share of the other's errors planted.
        share: of those errors.
    """

    means: tuple[float, float]
    found: Interval
    power: Power | None
    share: float

    @property
    def verdict(self) -> Verdict:
        """By :func:`rule`."""
        return judged(self.found, self.share * (1 - self.means[1]))

    def __str__(self) -> str:
        seen = "one draw shows nothing" if self.power is None else str(self.power)
        return f"{self.means[0]:.3f} against {self.means[1]:.3f}; difference {self.found}; {seen}"


def rule(share: float = YARDSTICK) -> str:
    """By which two arms are judged, in words."""
    return (
        f"shown: above 0 with its whole interval; not shown: below {share:.3g} of the other's errors with its whole "
        "interval; too small to tell: else"
    )


def compared(a: Sequence[float], b: Sequence[float], *, pictures: bool = False, share: float = YARDSTICK) -> Compared:
    """Two arms on the same draws, or on the same pictures, and what such a test can show.

    Args:
        a: how often the arm is right, of each draw or picture.
        b: the other.
        pictures: whether each number is of a picture; the interval then resamples them.
        share: of the other's errors, planted.

    Example:
        >>> test = compared([0.8, 0.9, 0.7], [0.5, 0.6, 0.4])
        >>> test.verdict, round(test.power.effect, 2)
        ('shown', 0.05)
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    means = sum(a) / len(a), sum(b) / len(b)
    found = lead(a, b) if pictures else interval(differences)
    effect = share * (1 - means[1])
    how: dict[str, Any] = {"low": over_pictures, "trials": 500} if pictures else {"low": over_draws}
    seen = power(differences, effect, **how) if len(differences) > 1 else None
    return Compared(means, found, seen, share)
