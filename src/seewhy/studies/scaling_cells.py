"""What a scaling study measures: one classifier, fitted on so many of the pictures, on the test pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import DataError
from .material import LEAST_PER_CLASS, Material

Draws = Literal["nested", "independent"]
LEAST_RATIO = 3
"""Between the largest and the smallest size."""


@dataclass(frozen=True)
class Arm:
    """One curve of a study.

    Attributes:
        encoder: its name.
        noise: part of the labels that are wrong.
        n_classes: so many of the classes, drawn anew with each seed; ``None`` for all.
    """

    encoder: str
    noise: float = 0.0
    n_classes: int | None = None

    @property
    def name(self) -> str:
        wrong = f", {self.noise:.0%} of labels wrong" if self.noise else ""
        return f"{self.encoder}{wrong}" + ("" if self.n_classes is None else f", {self.n_classes} classes")


def check_sizes(material: Material) -> None:
    """See that a curve can be measured."""
    each, names = LEAST_RATIO * LEAST_PER_CLASS, material.classes
    if len(material.pool) < each * len(names):
        raise DataError(
            f"{len(material.pool)} pictures of {len(names)} classes can be learnt from. For three sizes at least "
            f"{each} per class were expected, {each * len(names)} in all. Add pictures, or give test pictures of "
            "their own with --test."
        )


def classes_of(material: Material, arm: Arm, seed: int) -> list[int]:
    """Classes of an arm, in order."""
    every = list(range(len(material.classes)))
    if arm.n_classes is None:
        return every
    return sorted(random.Random(f"classes {seed}").sample(every, arm.n_classes))


def sizes(material: Material, arm: Arm, n_sizes: int) -> list[int]:
    """Rising geometrically up to all there are; at least :data:`LEAST_PER_CLASS` of each class."""
    classes = [classes_of(material, arm, seed) for seed in range(5 if arm.n_classes else 1)]
    labels = material.labels[material.pool]
    most = min(int(torch.isin(labels, torch.tensor(own)).sum()) for own in classes)
    least = max(LEAST_PER_CLASS * len(classes[0]), round(most / 64))
    steps = torch.logspace(0, 1, n_sizes, base=most / least).double() * least
    return sorted({round(float(v)) for v in steps})


def cell(
    material: Material, arm: Arm, size: int, seed: int, draws: Draws, c: float | None
) -> tuple[Int[Tensor, " t"], float]:
    """One classifier on so many pictures.

    Args:
        material: pictures as an encoder saw them.
        arm: which pictures, classes and labels.
        size: pictures learnt from.
        seed: of the subset.
        draws: how subsets of two sizes hang together.
        c: of the regularisation, chosen on another subset of this size; ``None`` to choose it on parts of this one.

    Returns:
        Of each test picture whether it is right, -1 where its class is not asked; and the C.
    """
    own = classes_of(material, arm, seed)
    labels = noisy(material.labels, material.pool, own, arm.noise, seed)
    order = subset_order(material.labels, material.pool, own, seed if draws == "nested" else f"{seed} {size}")[:size]
    number = torch.full((len(material.classes),), -1)
    number[own] = torch.arange(len(own))
    part = material.part(order, number[labels[order]], [material.classes[k] for k in own], seed)
    head, c = material.fitted(part, c)
    truth = number[material.labels[material.test]]
    with torch.no_grad():
        said = head(material.tested).argmax(1)
    return torch.where(truth < 0, -1, (said == truth).long()), c


def subset_order(
    labels: Int[Tensor, " n"], pool: Int[Tensor, " p"], classes: Sequence[int], seed: int | str
) -> Int[Tensor, " q"]:
    """Places of the pool in an order of which every beginning has the classes in their shares, at least two of each.

    >>> subset_order(torch.tensor([0, 0, 0, 1, 1, 1]), torch.arange(6), [0, 1], 0)[:4].sort().values > 2
    tensor([False, False,  True,  True])
    """
    keyed: list[tuple[bool, float, float, int]] = []
    for k in classes:
        mine = pool[labels[pool] == k].tolist()
        draw = random.Random(f"{seed}|{k}")
        draw.shuffle(mine)
        start = draw.random()
        keyed += [
            (rank >= LEAST_PER_CLASS, (rank + start) / len(mine), start, place) for rank, place in enumerate(mine)
        ]
    return torch.tensor([place for *_, place in sorted(keyed)])


def noisy(
    labels: Int[Tensor, " n"], pool: Int[Tensor, " p"], classes: Sequence[int], noise: float, seed: int
) -> Int[Tensor, " n"]:
    """The labels, this part of those learnt from changed into another class, the same ones at every size.

    >>> noisy(torch.zeros(9, dtype=torch.long), torch.arange(9), [0, 1], 1.0, 0).sum()
    tensor(9)
    """
    changed = labels.clone()
    if noise <= 0:
        return changed
    for place in pool.tolist():
        draw = random.Random(f"noise {seed} {place}")
        if draw.random() < noise:
            others = [k for k in classes if k != int(labels[place])]
            changed[place] = others[draw.randrange(len(others))]
    return changed


def as_text(right: Int[Tensor, " t"]) -> str:
    """One sign a picture, for the journal: 1 right, 0 wrong, - not asked."""
    return "".join("-01"[v + 1] for v in right.tolist())


def from_text(text: str) -> list[int]:
    return ["-01".index(sign) - 1 for sign in text]


def check_settings(target: float | None, noise: Sequence[float], n_classes: Sequence[int], known: int) -> None:
    """Refuse what cannot be asked."""
    if target is not None and not 0 < target < 1:
        raise DataError(
            f"The target {target:g} was given. An accuracy above 0 and below 1 was expected, which is a part of the "
            "pictures. Give 0.95, say."
        )
    for part in noise:
        if not 0 < part < 1:
            raise DataError(f"The noise {part:g} was given. A part of the labels above 0 and below 1 was expected.")
    for count in n_classes:
        if not 2 <= count < known:
            raise DataError(f"{count} classes were asked for, of {known}. A number from 2 to {known - 1} was expected.")
