"""Resampling seeds, subsets and test pictures at once, so that a curve's doubt is of all three."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .bootstrap import counts, group_weights


@dataclass(frozen=True)
class Resampled:
    """Errors by size, on what was measured and on each resampled set.

    Attributes:
        errors: kept off 0 by half a picture.
        draws: the same, one row a resampled set.
        by_seed: of each seed.
    """

    errors: Float[Tensor, " s"]
    draws: Float[Tensor, "d s"]
    by_seed: Float[Tensor, "s r"]


def resample(
    right: Int[Tensor, "s r t"],
    groups: Int[Tensor, " t"],
    *,
    nested: bool,
    n_draws: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Draw test pictures (groups whole), the same for all sizes, and seeds: with nested subsets the same for all sizes.

    Two arms with the same test pictures are resampled alike, so that differences between them are in pairs.

    Args:
        right: of each size, seed and test picture; -1 where it was not asked.
        groups: of the test pictures; those of one group are drawn together.
        nested: whether a seed's smaller subsets lie in its larger ones.
        n_draws: resampled sets.
        seed: of the draws.
    """
    n_sizes, n_seeds, n_test = right.shape
    generator = torch.Generator().manual_seed(seed)
    weight = group_weights(groups, n_draws, generator)
    asked = (right >= 0).double()
    wrong = asked * (1 - right.clamp(min=0).double())
    seeds = torch.randint(n_seeds, (n_draws, 1 if nested else n_sizes, n_seeds), generator=generator)
    share = counts(seeds, n_seeds)

    def errors(of: Tensor, by: Tensor) -> Tensor:
        """Parts that are wrong ``(d, s)`` under weights of pictures and of seeds."""
        bad, all_ = (torch.einsum("srt,dt->dsr", v, of) * by for v in (wrong, asked))
        return (bad.sum(2) + 0.5 * n_seeds) / (all_.sum(2) + n_seeds)

    every = errors(torch.ones(1, n_test, dtype=torch.double), torch.ones(1, 1, n_seeds, dtype=torch.double))[0]
    return Resampled(every, errors(weight, share), wrong.sum(2) / asked.sum(2))
