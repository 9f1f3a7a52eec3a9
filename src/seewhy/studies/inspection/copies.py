"""Copies: the same bytes, or the same picture saved anew, scaled, cut, mirrored or turned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ...classifiers.known_pictures import compact
from ...pictures.miniatures import stacked
from ...pictures.same_picture import Likeness, same_pictures


@dataclass(frozen=True)
class Copy:
    """Two pictures that are one.

    Attributes:
        first, second: their places.
        agreement: correlation of their details; 1 for the same bytes.
        same_bytes: whether the files are the same.
    """

    first: int
    second: int
    agreement: float
    same_bytes: bool


def find_copies(
    pooled: Float[Tensor, "n d"],
    miniatures: Sequence[UInt8[Tensor, " w"]],
    digests: Sequence[str],
    n_own: int | None = None,
    splits: Sequence[str | None] = (),
) -> tuple[Copy, ...]:
    """Every pair of copies, the first of the data before the second; of more than two with the same bytes, each with
    the first of its split, and the first of a split with those of the others.
    """
    n = len(digests)
    n_own = n if n_own is None else n_own
    places: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        places[digest].append(i)
    files = list(places.values())  # those of the data come first
    of = [file[0] for file in files]
    likeness = Likeness(stacked([miniatures[i] for i in of]), compact(pooled[of]).float() if n else None)
    found = [
        Copy(min(i, j), max(i, j), round(value, 4), False)
        for a, b, value in zip(*(x.tolist() for x in same_pictures(likeness)), strict=True)
        for i in files[a]
        for j in files[b]
        if min(i, j) < n_own
    ]
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
