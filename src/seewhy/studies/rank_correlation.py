"""Rank correlation over few things, alone or with a third number held, its interval by drawing the things anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 4
"""Fewer things have no interval to speak of."""


class RankCorrelation(NamedTuple):
    """Spearman's rho, and its percentile interval where most draws have one."""

    rho: float | None
    interval: tuple[float, float] | None


def ranks(x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    """Places from 1, equals sharing the mean of theirs.

    >>> ranks(torch.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    gap = x[..., :, None] - x[..., None, :]
    return (gap > 0).double().sum(-1) + (gap == 0).double().sum(-1) / 2 + 0.5


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    given: Sequence[float] | None = None,
    *,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman's rho of two numbers, or what is left of it given a third: ``(r_xy - r_xz r_yz) / √(…)`` of ranks.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]).rho
        1.0
        >>> rank_correlation([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]).rho is None  # nothing is left
        True
    """
    table = torch.tensor([list(x), list(y), *([] if given is None else [list(given)])], dtype=torch.double)
    whole = _rho(table[:, None])[0]
    generator = torch.Generator().manual_seed(seed)
    drawn = _rho(table[:, torch.randint(table.shape[1], (n_draws, table.shape[1]), generator=generator)])
    drawn = drawn[drawn.isfinite()]
    interval = None
    if table.shape[1] >= LEAST and len(drawn) >= n_draws / 2:
        edges = drawn.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double))
        interval = float(edges[0]), float(edges[1])
    return RankCorrelation(float(whole) if bool(whole.isfinite()) else None, interval)


def _rho(table: Float[Tensor, "v b n"]) -> Float[Tensor, " b"]:
    """Of each row of the things; NaN where it is not defined."""
    places = ranks(table)
    places = places - places.mean(-1, keepdim=True)
    norm = places.norm(dim=-1, keepdim=True)
    unit = torch.where(norm > 1e-9, places / norm.clamp(min=1e-9), torch.nan)
    xy = (unit[0] * unit[1]).sum(-1)
    if len(unit) == 2:
        return xy
    xz, yz = ((unit[i] * unit[2]).sum(-1) for i in (0, 1))
    left = (1 - xz.square()) * (1 - yz.square())
    return torch.where(left > 1e-9, (xy - xz * yz) / left.clamp(min=1e-9).sqrt(), torch.nan)
