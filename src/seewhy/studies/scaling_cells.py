"""What a scaling study measures: one classifier, fitted on so many of the pictures, on the test pictures."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifiers.holdout import Pictures
from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..errors import DataError
from ..pictures.samples import some
from ..trust.groups import group_folds

Draws = Literal["nested", "independent"]
LEAST_PER_CLASS = 2
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


@dataclass(frozen=True)
class Material:
    """Pictures to learn from and pictures to test on, as one encoder saw them.

    Attributes:
        encoder: what looked.
        pictures: all of them; those ``held`` are tested on.
        recipe: what is fitted.
    """

    encoder: Encoder
    pictures: Pictures
    recipe: Linear

    @property
    def pool(self) -> Int[Tensor, " p"]:
        """Places of those to learn from."""
        return (~self.pictures.held).nonzero()[:, 0]

    @property
    def test(self) -> Int[Tensor, " t"]:
        """Places of those to test on."""
        return self.pictures.held.nonzero()[:, 0]

    def digest(self) -> str:
        """Of all that a cell's number depends on beside arm, size and seed."""
        told = hashlib.sha256(f"{self.encoder.fingerprint}|{self.recipe!r}".encode())
        for seen, label, held in zip(
            self.pictures.seen, self.pictures.labels.tolist(), self.pictures.held.tolist(), strict=True
        ):
            told.update(f"|{seen.digest} {label} {held}".encode())
        return told.hexdigest()[:20]

    def check(self) -> None:
        """See that a curve can be measured.

        Raises:
            DataError: a class has no test picture or one picture to learn from, or too few are there for three sizes.
        """
        names, labels = self.pictures.classes, self.pictures.labels
        learn, tests = (labels[of].bincount(minlength=len(names)) for of in (self.pool, self.test))
        single = [names[k] for k in (learn < LEAST_PER_CLASS).nonzero()[:, 0].tolist()]
        if single:
            raise DataError(
                f"{len(single)} class(es) have fewer than {LEAST_PER_CLASS} pictures to learn from: {some(single, 3)}. "
                f"At least {LEAST_PER_CLASS} of each, and as many that can be tested on, were expected. Add pictures, "
                "or leave these classes out."
            )
        absent = [names[k] for k in (tests == 0).nonzero()[:, 0].tolist()]
        if absent:
            raise DataError(
                f"{len(absent)} class(es) have no test picture: {some(absent, 3)}. At least one of each was expected. "
                "Add some to the test pictures, or leave these classes out."
            )
        each = LEAST_RATIO * LEAST_PER_CLASS
        if len(self.pool) < each * len(names):
            raise DataError(
                f"{len(self.pool)} pictures of {len(names)} classes can be learnt from. For three sizes at least "
                f"{each} per class were expected, {each * len(names)} in all. Add pictures, or give test pictures of "
                "their own with --test."
            )

    def classes_of(self, arm: Arm, seed: int) -> list[int]:
        """Classes of an arm, in order."""
        every = list(range(len(self.pictures.classes)))
        if arm.n_classes is None:
            return every
        return sorted(random.Random(f"classes {seed}").sample(every, arm.n_classes))

    def sizes(self, arm: Arm, n_sizes: int) -> list[int]:
        """Rising geometrically up to all there are; at least :data:`LEAST_PER_CLASS` of each class."""
        classes = [self.classes_of(arm, seed) for seed in range(5 if arm.n_classes else 1)]
        labels = self.pictures.labels[self.pool]
        most = min(int(torch.isin(labels, torch.tensor(own)).sum()) for own in classes)
        least = max(LEAST_PER_CLASS * len(classes[0]), round(most / 64))
        steps = torch.logspace(0, 1, n_sizes, base=most / least).double() * least
        return sorted({round(float(v)) for v in steps})

    def cell(self, arm: Arm, size: int, seed: int, draws: Draws, c: float | None) -> tuple[Int[Tensor, " t"], float]:
        """One classifier on so many pictures.

        Args:
            arm: which pictures, classes and labels.
            size: pictures learnt from.
            seed: of the subset.
            draws: how subsets of two sizes hang together.
            c: of the regularisation, chosen on another subset of this size; ``None`` to choose it on parts of this one.

        Returns:
            Of each test picture whether it is right, -1 where its class is not asked; and the C.
        """
        own = self.classes_of(arm, seed)
        labels = noisy(self.pictures.labels, self.pool, own, arm.noise, seed)
        order = subset_order(self.pictures.labels, self.pool, own, seed if draws == "nested" else f"{seed} {size}")
        number = torch.full((len(self.pictures.classes),), -1)
        number[own] = torch.arange(len(own))
        part = self._part(order[:size], number, labels, tuple(self.pictures.classes[k] for k in own), seed)
        if c is None:
            outcome = self.recipe.learn_seen(self.encoder, part)
            head, c = outcome.classifier.head, float(outcome.figures["C"])
        else:
            head = self.recipe.fit_at(part, c)
        truth = number[self.pictures.labels[self.test]]
        with torch.no_grad():
            said = head(self.tested).argmax(1)
        return torch.where(truth < 0, -1, (said == truth).long()), c

    @cached_property
    def tested(self) -> Float[Tensor, "t d"]:
        """What the encoder saw of the test pictures, each by its own crop."""
        return torch.stack([self.pictures.seen[i].pooled[0] for i in self.test.tolist()])

    def _part(self, chosen: Tensor, number: Tensor, labels: Tensor, classes: tuple[str, ...], seed: int) -> Pictures:
        """A subset, with folds of its own to choose on, pictures of the same thing in one."""
        part = self.pictures.only(chosen.tolist())
        own = number[labels[chosen]]
        folds = group_folds(
            own, part.groups.unique(return_inverse=True)[1], max(2, round(1 / self.recipe.held_out)), seed
        )
        return replace(part, classes=classes, labels=own, folds=folds, held=folds == 0)


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
    """Refuse what cannot be asked.

    Raises:
        DataError: a target that is no part, noise that leaves nothing, more classes than there are.
    """
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
