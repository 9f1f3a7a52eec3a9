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
from .details import agreement, details
from .pixels import PixelFacts

LEAST_COSINE = 0.8
"""Of two copies' features, as :mod:`seewhy.classifiers.known_pictures` compares them,"""
LEAST_MATCH = 0.7
"""and correlation of their small grey copies, one mirrored or not: both only say which pairs are looked at closely,"""
LEAST_DETAIL = 0.78
"""and correlation of their details. Of 400 product photographs on white and 400 blood cells, no two that are merely
alike have more than .72; of 40 of each that were changed in eight ways, 95 of 100 have .83 or more in each way."""
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
    facts: Sequence[PixelFacts],
    digests: Sequence[str],
    n_own: int | None = None,
    splits: Sequence[str | None] = (),
) -> tuple[Copy, ...]:
    """Every pair of copies, the first of the data before the second; of more than two with the same bytes, each with
    the first of its split, and the first of a split with those of the others.

    Args:
        pooled: features.
        facts: of the views that were looked at.
        digests: of the files.
        n_own: pictures from this place on are of other splits, which are not compared among themselves.
        splits: of which part each is; none, where all are of one.
    """
    n = len(digests)
    n_own = n if n_own is None else n_own
    if not n:
        return ()
    first, second, cosine = _alike(pooled, torch.from_numpy(np.stack([f.small for f in facts])).float(), digests, n_own)
    involved = sorted({*first.tolist(), *second.tolist()})
    place = torch.zeros(n, dtype=torch.long)
    place[involved] = torch.arange(len(involved))
    same = torch.zeros(0, dtype=torch.bool)
    if involved:
        fine = details([facts[i].fine for i in involved])
        same = agreement(fine, place[first], place[second]) >= LEAST_DETAIL
    found = [
        Copy(i, j, round(min(1.0, c), 4), False)
        for i, j, c in zip(first[same].tolist(), second[same].tolist(), cosine[same].tolist(), strict=True)
    ]
    return tuple(sorted([*_same(digests, n_own, splits or [None] * n), *found], key=lambda c: (c.first, c.second)))


def _alike(
    pooled: Float[Tensor, "n d"], small: Float[Tensor, "n s s"], digests: Sequence[str], n_own: int
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Pairs of different files that are worth a closer look, and the cosine of their features."""
    unit = normalize(compact(pooled).float(), dim=1)
    plain, mirrored = small.flatten(1), small.flip(2).flatten(1)
    file = {digest: i for i, digest in enumerate(dict.fromkeys(digests))}
    of = torch.tensor([file[digest] for digest in digests])
    pairs, cosines = [], []
    for part in torch.arange(n_own).split(STEP):
        cosine = unit[part] @ unit.T
        match = torch.maximum(plain[part] @ plain.T, mirrored[part] @ plain.T)
        later = torch.arange(len(of))[None] > part[:, None]
        near = (cosine >= LEAST_COSINE) & (match >= LEAST_MATCH) & later & (of[part][:, None] != of[None])
        row, j = near.nonzero(as_tuple=True)
        pairs.append(torch.stack([part[row], j]))
        cosines.append(cosine[row, j])
    first, second = torch.cat(pairs, dim=1) if pairs else torch.zeros(2, 0, dtype=torch.long)
    return first, second, torch.cat(cosines) if cosines else torch.zeros(0)


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
