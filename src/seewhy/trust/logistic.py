"""A logistic model of few signs, none of which may count the wrong way round, with the spread of its answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PRIOR = 1.0
"""Of the squared slopes, in pictures: without it, signs that part right from wrong perfectly have no finite slope."""
N_DRAWS = 200


@dataclass(frozen=True)
class Monotone:
    """``sigmoid(slopes · (signs − mean) / deviation + level)`` with slopes of 0 or more.

    Attributes:
        mean, deviation: of the signs it was fitted on.
        slopes: of each sign, the last number being the level.
        drawn: the same, fitted to as many groups of pictures drawn anew with replacement.
    """

    mean: Float[Tensor, " s"]
    deviation: Float[Tensor, " s"]
    slopes: Float[Tensor, " t"]
    drawn: Float[Tensor, "r t"]

    @classmethod
    def fit(
        cls, signs: Float[Tensor, "n s"], true: Bool[Tensor, " n"], groups: Int[Tensor, " n"], seed: int = 0
    ) -> Monotone:
        """By maximum likelihood; signs that would count against what they stand for are left out."""
        mean, deviation = signs.mean(0), signs.std(0, correction=0).clamp(min=1e-6)
        x = torch.cat([(signs - mean) / deviation, torch.ones(len(signs), 1)], 1).double()
        y = true.double()
        used = torch.ones(x.shape[1], dtype=torch.bool)
        while True:
            slopes = _newton(x * used, y, torch.ones(1, len(x), dtype=torch.double))[0]
            wrong = (slopes < 0) & used
            wrong[-1] = False
            if not bool(wrong.any()):
                break
            used &= ~wrong
        place = groups.unique(return_inverse=True)[1]
        n_groups = int(place.max()) + 1
        draws = torch.randint(n_groups, (N_DRAWS, n_groups), generator=torch.Generator().manual_seed(seed))
        weight = torch.stack([torch.bincount(row, minlength=n_groups) for row in draws]).double()
        drawn = _newton(x * used, y, weight[:, place])
        drawn[:, :-1] = drawn[:, :-1].clamp(min=0)
        return cls(mean, deviation, slopes.float(), drawn.float())

    def margin(self, signs: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
        """The log odds of true."""
        return ((signs - self.mean) / self.deviation) @ self.slopes[:-1] + self.slopes[-1]

    def interval(self, signs: Float[Tensor, "b s"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Where 95 % of the probabilities lie when the groups are drawn anew."""
        margins = ((signs - self.mean) / self.deviation) @ self.drawn[:, :-1].T + self.drawn[:, -1]
        low, high = margins.sigmoid().quantile(torch.tensor([0.025, 0.975]), dim=1)
        return low, high


def _newton(x: Float[Tensor, "n t"], y: Float[Tensor, " n"], weight: Float[Tensor, "r n"]) -> Float[Tensor, "r t"]:
    """One fit a row of weights, all at once; the level has no prior but a faint one."""
    t = x.shape[1]
    prior = torch.full((t,), PRIOR, dtype=torch.double)
    prior[-1] = 1e-3
    b = torch.zeros(len(weight), t, dtype=torch.double)
    products = (x[:, :, None] * x[:, None, :]).flatten(1)
    for _ in range(25):
        p = (b @ x.T).sigmoid()
        slope = (weight * (y - p)) @ x - prior * b
        curve = ((weight * p * (1 - p)) @ products).unflatten(1, (t, t)) + torch.diag(prior)
        step = torch.linalg.solve(curve, slope[..., None])[..., 0]
        b = b + step.clamp(-4, 4)
        if float(step.abs().max()) < 1e-8:
            break
    return b
