"""k-means clustering."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDS = 50


def k_means(x: Float[Tensor, "n d"], k: int, draws: torch.Generator) -> Float[Tensor, "k d"]:
    """Return ``k`` centres by Lloyd's algorithm from a k-means++ start."""
    first = int(torch.randint(len(x), (1,), generator=draws))
    chosen, gap = [first], (x - x[first]).square().sum(1)
    while len(chosen) < k:
        weight = gap if float(gap.sum()) > 0 else torch.ones_like(gap)
        chosen.append(int(torch.multinomial(weight, 1, generator=draws)))
        gap = torch.minimum(gap, (x - x[chosen[-1]]).square().sum(1))
    centres = x[chosen].clone()
    owner = torch.full((len(x),), -1)
    for _ in range(ROUNDS):
        nearest = (x @ centres.T - centres.square().sum(1) / 2).argmax(1)
        if torch.equal(nearest, owner):
            break
        owner = nearest
        n = torch.bincount(owner, minlength=k)
        means = torch.zeros_like(centres).index_add_(0, owner, x) / n.clamp(min=1)[:, None]
        centres = torch.where(n[:, None] > 0, means, centres)
    return centres
