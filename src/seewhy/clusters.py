"""Clusters and groups: k-means, connected components, and values by their keys."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

K = TypeVar("K")
V = TypeVar("V")

ROUNDS = 50
PART = 4096
"""Number of rows that are compared with all centres at once."""


def k_means(x: Float[Tensor, "n d"], k: int, draws: torch.Generator) -> Float[Tensor, "k d"]:
    """Return ``k`` centres by Lloyd's algorithm from a k-means++ start."""
    first = int(torch.randint(len(x), (1,), generator=draws))
    chosen, gap = [first], (x - x[first]).square().sum(1)
    while len(chosen) < k:
        weight = gap if float(gap.sum()) > 0 else torch.ones_like(gap)
        chosen.append(int(torch.multinomial(weight, 1, generator=draws)))
        gap = torch.minimum(gap, (x - x[chosen[-1]]).square().sum(1))
    return lloyd(x, x[chosen])[0]


def lloyd(
    x: Float[Tensor, "n d"], centres: Float[Tensor, "k d"], n_rounds: int = ROUNDS, *, spherical: bool = False
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " n"]]:
    """Return the centres after up to ``n_rounds`` of Lloyd's algorithm, and the centre of each row.

    A centre without rows stays where it is. With ``spherical``, rows and centres are unit vectors (Dhillon & Modha
    2001).
    """
    owner = torch.full((len(x),), -1)
    for _ in range(n_rounds):
        length = 0 if spherical else centres.square().sum(1) / 2
        nearest = torch.cat([(part @ centres.T - length).argmax(1) for part in x.split(PART)])
        if torch.equal(nearest, owner):
            break
        owner = nearest
        sums = torch.zeros_like(centres).index_add_(0, owner, x)
        n = torch.bincount(owner, minlength=len(centres))[:, None]
        used = sums.norm(dim=1, keepdim=True) > 0 if spherical else n > 0
        centres = torch.where(used, normalize(sums, dim=1) if spherical else sums / n.clamp(min=1), centres)
    return centres, owner


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Return the values of each key; keys and values stay in order.

    >>> grouped([("a", 1), ("b", 2), ("a", 3)])
    {'a': [1, 3], 'b': [2]}
    """
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def numbered(names: Sequence[Hashable]) -> Int[Tensor, " n"]:
    """Return an index for each name, in order of first occurrence."""
    number: dict[Hashable, int] = {}
    return torch.tensor([number.setdefault(name, len(number)) for name in names], dtype=torch.long)


def links(numbers: Int[Tensor, " n"]) -> Int[Tensor, "n 2"]:
    """Return pairs that link each position with the first position of the same group."""
    places, name = torch.arange(len(numbers)), numbers.unique(return_inverse=True)[1]
    return torch.stack([places.scatter_reduce(0, name, places, "amin", include_self=False)[name], places], 1)


def connected(n: int, *pairs: Int[Tensor, "_ 2"]) -> Int[Tensor, " n"]:
    """Return the connected components of pairs, numbered by first member."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = torch.cat(pairs).T.numpy()
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    return torch.from_numpy(connected_components(edges, directed=False)[1]).long()
