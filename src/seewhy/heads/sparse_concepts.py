"""Similarities with concepts, of which each picture keeps a few (IIS, Shen et al. 2025, arXiv:2510.24105)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from ..errors import InputError

SPARSITIES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
"""The grid of the authors' scripts."""

Mask = Literal["hard", "soft", "authors"]
"""How few are kept: ``hard`` keeps ``M - floor(sM)`` values as they are, ``soft`` makes them ``x · (|x| - tau)``, and
``authors`` keeps those strictly above the ``floor(sM)``-th smallest, one fewer: their code."""


def n_kept(n_concepts: int, sparsity: float, mask: Mask = "hard") -> int:
    """How many concepts a picture keeps.

    Example:
        >>> [n_kept(200, s) for s in SPARSITIES], [n_kept(200, s, "authors") for s in (0, 0.1, 0.95, 0.98)]
        ([200, 180, 140, 100, 60, 20, 10, 4], [199, 179, 9, 3])
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"The sparsity is {sparsity}. A part from 0 to below 1 was expected. Take 0.9, say.")
    if mask not in ("hard", "soft", "authors"):
        raise InputError(f"There is no mask called {mask!r}. hard, soft or authors was expected. Take hard.")
    # 0.29 · 100 is 28.999…96 as a floating-point number.
    kept = n_concepts - math.floor(sparsity * n_concepts + 1e-9) - (mask == "authors")
    if kept < 1:
        raise InputError(
            f"Of {n_concepts} concepts none is left at sparsity {sparsity:g}. At least one was expected. Take more "
            "concepts or a smaller sparsity."
        )
    return kept


def concept_scores(
    pooled: Float[Tensor, "b d"], concepts: Float[Tensor, "m d"], *, over_concepts: bool = True
) -> Float[Tensor, "b m"]:
    """``LayerNorm_M(z Cᵀ)``: pooled features as they are, concepts at unit length.

    The mean and the spread of LayerNorm are those of all concepts, so that a value that is kept still depends on those
    that are not.
    """
    products = pooled @ normalize(concepts, dim=1).T
    return layer_norm(products, products.shape[1:]) if over_concepts else products


def strongest(scores: Float[Tensor, "b m"], kept: int) -> Bool[Tensor, "b m"]:
    """Which ``kept`` values of each row are the largest by size; of equal ones those that come first."""
    order = scores.detach().abs().argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :kept], True)


def sparsify(scores: Float[Tensor, "b m"], sparsity: float, mask: Mask = "hard") -> Float[Tensor, "b m"]:
    """Each row's strongest values, the others 0; the gradient goes through those that are kept.

    With ``mask="authors"`` this is ``soft_threshold_with_ratio`` of their code, which, strictly above its threshold,
    keeps one fewer than ``M - floor(sM)`` (199 of 200 at sparsity 0), and fewer still where values are equal. ``soft``
    is the paper's equation 4 as reviews quote it, ``x · max(|x| - tau, 0)``, with the largest size left out as ``tau``.

    Example:
        >>> sparsify(torch.tensor([[3.0, -2.0, 1.0, 0.5]]), 0.5).tolist()
        [[3.0, -2.0, 0.0, 0.0]]
        >>> sparsify(torch.tensor([[3.0, -2.0, 1.0, 0.5]]), 0.5, "soft").tolist()
        [[6.0, -2.0, 0.0, 0.0]]
    """
    kept = n_kept(scores.shape[1], sparsity, mask)
    size = scores.detach().abs()
    if mask == "authors":
        edge = size.sort(dim=1).values[:, -kept - 1, None]
        return scores * (size > edge)
    keep = strongest(scores, kept)
    if mask == "hard":
        return scores * keep
    edge = torch.where(keep, 0.0, size).amax(1, keepdim=True)
    return scores * (scores.abs() - edge).clamp(min=0) * keep
