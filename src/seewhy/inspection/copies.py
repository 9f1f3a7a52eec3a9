"""Copies: the same bytes, or the same picture saved anew, scaled, mirrored or slightly cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.known_pictures import compact

LEAST_COSINE = 0.92
"""Of two copies' features, as :mod:`seewhy.classifiers.known_pictures` compares them,"""
LEAST_MATCH = 0.85
"""and correlation of their small grey copies, one mirrored or not. Over 65 groceries, each changed in every way, both
hold for all at 2 % cut off each side, all mirrored, 98 % saved anew at quality 50, 89 % halved and 28 % at 5 % cut off;
and for 8 of the 972 among themselves, against 172 by the cosine alone."""
STEP = 512


@dataclass(frozen=True)
class Copy:
    """Two pictures that are one.

    Attributes:
        first, second: their places.
        cosine: of their features; 1 for the same bytes.
        same_bytes: whether the files are the same.
    """

    first: int
    second: int
    cosine: float
    same_bytes: bool


def find_copies(
    pooled: Float[Tensor, "n d"],
    small: Sequence[np.ndarray],
    digests: Sequence[str],
    n_own: int | None = None,
    splits: Sequence[str | None] = (),
) -> tuple[Copy, ...]:
    """Every pair of copies, the first of the data before the second; of more than two with the same bytes, each with
    the first of its split, and the first of a split with those of the others.

    Args:
        pooled: features.
        small: grey copies of length 1.
        digests: of the files.
        n_own: pictures from this place on are of other splits, which are not compared among themselves.
        splits: of which part each is; none, where all are of one.
    """
    n = len(digests)
    n_own = n if n_own is None else n_own
    if not n:
        return ()
    unit = normalize(compact(pooled).float(), dim=1)
    grey = torch.from_numpy(np.stack(small)).float()
    plain, mirrored = grey.flatten(1), grey.flip(2).flatten(1)
    found = []
    for part in torch.arange(n_own).split(STEP):
        cosine = unit[part] @ unit.T
        match = torch.maximum(plain[part] @ plain.T, mirrored[part] @ plain.T)
        near = (cosine >= LEAST_COSINE) & (match >= LEAST_MATCH)
        for row, j in near.nonzero().tolist():
            i = int(part[row])
            if i < j and digests[i] != digests[j]:
                found.append(Copy(i, j, round(min(1.0, float(cosine[row, j])), 4), False))
    return tuple(sorted([*_same(digests, n_own, splits or [None] * n), *found], key=lambda c: (c.first, c.second)))


def _same(digests: Sequence[str], n_own: int, splits: Sequence[str | None]) -> list[Copy]:
    found = []
    first: dict[str, dict[str | None, int]] = {}
    for j, (digest, split) in enumerate(zip(digests, splits, strict=True)):
        there = first.setdefault(digest, {})
        known = [there[split]] if j < n_own and split in there else list(there.values())
        found += [Copy(i, j, 1.0, True) for i in known]
        if j < n_own:
            there.setdefault(split, j)
    return found


def joined(n: int, copies: Sequence[Copy], given: Sequence[str | None]) -> Int[Tensor, " n"]:
    """A number for each picture: copies, and those of one given group, have the same."""
    number = list(range(n))

    def root(i: int) -> int:
        while number[i] != i:
            number[i] = number[number[i]]
            i = number[i]
        return i

    first: dict[str, int] = {}
    pairs = [(first.setdefault(g, i), i) for i, g in enumerate(given) if g is not None]
    for i, j in (*pairs, *((c.first, c.second) for c in copies if c.second < n)):
        a, b = root(i), root(j)
        number[max(a, b)] = min(a, b)
    return torch.tensor([root(i) for i in range(n)]).unique(return_inverse=True)[1]
