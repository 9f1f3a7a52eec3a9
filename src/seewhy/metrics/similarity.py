"""Similarity of two maps: Pearson and Spearman correlation, and structural similarity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d


def pearson(a: Float[Tensor, "n m"], b: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Return Pearson's correlation of each pair of rows; 0 if a row is constant."""
    a, b = (v.double() - v.double().mean(1, keepdim=True) for v in (a, b))
    norms = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norms > 1e-12, (a * b).sum(1) / norms.clamp(min=1e-12), 0.0).float()


def spearman(a: Float[Tensor, "n m"], b: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Return Spearman's rank correlation of each pair of rows; equal values get their mean rank."""
    return pearson(mean_ranks(a), mean_ranks(b))


def mean_ranks(rows: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Return the ranks in each row, counted from 0; equal values get their mean rank."""
    rows = rows.contiguous()
    ordered = rows.sort(1).values  # a card loads no scipy, which takes half a second
    below, through = (torch.searchsorted(ordered, rows, right=right) for right in (False, True))
    return (below + through - 1).double() / 2


def ssim(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"], window: int = 7) -> Float[Tensor, " n"]:
    """Return the structural similarity (Wang et al. 2004) of maps scaled to 0…1, with 7 × 7 windows."""
    size = window * window
    unbiased = size / (size - 1)

    def mean(x: Tensor) -> Tensor:
        return avg_pool2d(x[:, None].double(), window, 1)[:, 0]

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = (unbiased * (mean(x * x) - m * m) for x, m in ((a.double(), mean_a), (b.double(), mean_b)))
    both = unbiased * (mean(a.double() * b.double()) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    structure = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (structure / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2)).float()
