"""Which of the user's pictures show the same thing, and parts of them that keep such pictures together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .normalise import Normalise

CHANCE_LINKS = 0.05
"""Links a picture may expect by chance to others of its class."""


@dataclass(frozen=True)
class Grouping:
    """Pictures of the same thing have the same number.

    Attributes:
        groups: one number a picture.
        by: ``"looks"``, ``"given"`` or ``"copies"``.
        threshold: cosine from which two pictures of a class count as the same thing; ``None`` unless by looks.
    """

    groups: Int[Tensor, " n"]
    by: str
    threshold: float | None = None

    @property
    def joins(self) -> bool:
        """Whether any two pictures show the same thing."""
        return len(self.groups.unique()) < len(self.groups)


def group_by_copies(digests: Sequence[str]) -> Grouping:
    """Only the same bytes are the same thing."""
    number: dict[str, int] = {}
    return Grouping(torch.tensor([number.setdefault(d, len(number)) for d in digests]), "copies")


def group_by_names(names: Sequence[str], digests: Sequence[str]) -> Grouping:
    """The same name given by the user, or the same bytes, are the same thing."""
    number: dict[str, int] = {}
    given = torch.tensor([number.setdefault(n, len(number)) for n in names])
    return Grouping(_joined(given, group_by_copies(digests).groups), "given")


def group_by_looks(pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"], digests: Sequence[str]) -> Grouping:
    """Pictures of one class that look more alike than pictures of different things do.

    Of every picture what its class has in common is taken away; what is left is its object and its scene. Two
    pictures of different classes never show the same object, so the cosines between them say how alike different
    things look.
    """
    copies = group_by_copies(digests).groups
    rest = residual(pooled, labels)
    threshold = chance_threshold(rest, labels)
    groups = copies.clone()
    if threshold is not None:
        for k in labels.unique().tolist():
            mine = (labels == k).nonzero()[:, 0]
            near = rest[mine] @ rest[mine].T >= threshold
            groups[mine] = len(labels) + mine[_components(near)]
    return Grouping(_joined(groups, copies), "looks", threshold)


def residual(pooled: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Unit vectors of what is left of each picture without the mean of its class."""
    x = Normalise(0.5, l2=True)(pooled)
    count = labels.bincount().clamp(min=1)[:, None]
    mean = torch.zeros(len(count), x.shape[1]).index_add_(0, labels, x) / count
    return torch.nn.functional.normalize(x - mean[labels], dim=1)


def chance_threshold(rest: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> float | None:
    """The cosine from which chance links a picture to at most :data:`CHANCE_LINKS` others of its class."""
    count = labels.bincount()
    pairs = float((count * (count - 1) / 2).sum())
    other = labels[:, None] != labels[None]
    between = (rest @ rest.T)[other.triu(1)]
    if not len(between) or pairs == 0:
        return None
    allowed = CHANCE_LINKS * len(labels) / 2 / pairs
    place = min(len(between) - 1, round(allowed * len(between)))
    return float(between.sort(descending=True).values[place])


def _components(near: Tensor) -> Tensor:
    """Smallest index that each can be reached from over true entries."""
    name = torch.arange(len(near))
    while True:
        reached = torch.where(near | torch.eye(len(near), dtype=torch.bool), name[None], len(near)).amin(1)
        reached = reached[reached]
        if torch.equal(reached, name):
            return name
        name = reached


def _joined(one: Int[Tensor, " n"], other: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The finest numbering that keeps together what either keeps together."""
    parent = list(range(len(one)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for numbers in (one.tolist(), other.tolist()):
        first: dict[int, int] = {}
        for i, number in enumerate(numbers):
            a, b = root(first.setdefault(number, i)), root(i)
            parent[max(a, b)] = min(a, b)
    return torch.tensor([root(i) for i in range(len(one))]).unique(return_inverse=True)[1]


def measurable(labels: Int[Tensor, " n"], groups: Int[Tensor, " n"]) -> Tensor:
    """Which pictures can be held out: of one class only, which has another group to train on."""
    owners: dict[int, set[int]] = defaultdict(set)
    for label, group in zip(labels.tolist(), groups.tolist(), strict=True):
        owners[label].add(group)
    return torch.tensor([len(owners[label]) > 1 for label in labels.tolist()])


def hold_out_groups(labels: Int[Tensor, " n"], groups: Int[Tensor, " n"], fraction: float, seed: int) -> Tensor:
    """Flags of about this part of every class, in whole groups: at least one where there are two, and never all."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    if fraction <= 0:
        return held
    for k in labels.unique().tolist():
        mine = labels == k
        names = groups[mine].unique().tolist()
        random.Random(f"{seed}|{k}").shuffle(names)
        wanted, n = fraction * int(mine.sum()), 0
        for name in names[:-1]:
            part = mine & (groups == name)
            size = int(part.sum())
            if n and abs(n + size - wanted) >= abs(n - wanted):
                continue
            held |= part
            n += size
            if n >= wanted:
                break
    return held


def group_folds(labels: Int[Tensor, " n"], groups: Int[Tensor, " n"], n_folds: int, seed: int) -> Int[Tensor, " n"]:
    """Number every picture's fold: groups whole, every class spread as evenly as its groups allow.

    The largest groups are placed first, each where the least of its classes is. A class whose pictures would all fall
    into one fold cannot be measured: it is only trained on, in fold -1.

    Args:
        labels: class of each picture.
        groups: of each picture.
        n_folds: at least 2.
        seed: which groups go together.
    """
    order = torch.randperm(int(groups.max()) + 1, generator=torch.Generator().manual_seed(seed)).tolist()
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups.tolist()):
        members[group].append(i)
    of, size = labels.tolist(), labels.bincount().tolist()
    placed: dict[int, list[float]] = {k: [0.0] * n_folds for k in set(of)}
    total = [0] * n_folds
    fold = torch.full((len(labels),), -1)
    for group in sorted(members, key=lambda g: (-len(members[g]), order[g])):
        mine = members[group]
        load = [sum(placed[of[i]][f] / size[of[i]] for i in mine) for f in range(n_folds)]
        best = min(range(n_folds), key=lambda f: (round(load[f], 9), total[f]))
        for i in mine:
            placed[of[i]][best] += 1
        total[best] += len(mine)
        fold[mine] = best
    lone = {k for k, counts in placed.items() if sum(c > 0 for c in counts) < 2}
    keep = [group for group, mine in members.items() if any(of[i] in lone for i in mine)]
    for group in keep:
        fold[members[group]] = -1
    return fold
