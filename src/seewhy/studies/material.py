"""Pictures encoded by several encoders, and linear classifiers fitted on subsets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifiers.encoded_set import EncodedSet, HoldOut, encode_samples
from ..classifiers.linear.jitter import crops_by_name
from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..encoders.stream import EncodeRequest, encode_stream
from ..errors import DataError
from ..heads.head import Head
from ..pictures.samples import Sample, Samples, check_apart, some
from ..progress import Progress
from ..storage.features import FeatureStore
from ..types import Crop

LEAST_PER_CLASS = 2


@dataclass(frozen=True)
class Material:
    """Training and test pictures, encoded by one encoder."""

    encoder: Encoder
    pictures: EncodedSet
    recipe: Linear

    @property
    def pool(self) -> Int[Tensor, " p"]:
        """Positions of the training pictures."""
        return (~self.pictures.held).nonzero()[:, 0]

    @property
    def test(self) -> Int[Tensor, " t"]:
        """Positions of the test pictures."""
        return self.pictures.held.nonzero()[:, 0]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.pictures.classes

    @property
    def labels(self) -> Int[Tensor, " n"]:
        return self.pictures.labels

    @cached_property
    def tested(self) -> Float[Tensor, "t d"]:
        """Features of the test pictures."""
        return self.pictures.pooled[self.test]

    def digest(self) -> str:
        """Return a digest of encoder, recipe, pictures and labels."""
        told, pictures = hashlib.sha256(f"{self.encoder.fingerprint}|{self.recipe!r}".encode()), self.pictures
        for seen, label, held in zip(pictures.encoded, self.labels.tolist(), pictures.held.tolist(), strict=True):
            told.update(f"|{seen.digest} {label} {held}".encode())
        return told.hexdigest()[:20]

    def check(self) -> None:
        """Check that every class has training and test pictures."""
        learn, tests = (self.labels[of].bincount(minlength=len(self.classes)) for of in (self.pool, self.test))
        if single := [self.classes[k] for k in (learn < LEAST_PER_CLASS).nonzero()[:, 0].tolist()]:
            raise DataError(
                f"Every class must have at least {LEAST_PER_CLASS} training pictures, and {len(single)} class(es) have "
                f"fewer: {some(single, 3)}. Add pictures, or leave these classes out."
            )
        if absent := [self.classes[k] for k in (tests == 0).nonzero()[:, 0].tolist()]:
            raise DataError(
                f"Every class must have a test picture, and {len(absent)} class(es) have none: {some(absent, 3)}. Add "
                "pictures, or leave these classes out."
            )

    def part(
        self, chosen: Int[Tensor, " m"], labels: Int[Tensor, " m"], classes: Sequence[str], seed: int
    ) -> EncodedSet:
        """Return the pictures at these positions with new labels and folds."""
        part = replace(self.pictures.subset(chosen.tolist()), classes=tuple(classes), labels=labels)
        return part.with_folds(max(2, round(1 / self.recipe.held_out)), seed)

    def fitted(self, part: EncodedSet, c: float | None) -> tuple[Head, float]:
        """Return a fitted classifier and its regularisation strength: ``c``, or one chosen by cross-validation."""
        if c is not None:
            return self.recipe.fit_at(part, c), c
        outcome = self.recipe.learn_seen(self.encoder, part)
        return outcome.classifier.head, float(outcome.figures["C"])


def look_with_each(
    encoders: Mapping[str, Encoder],
    samples: Samples,
    recipe: Linear,
    *,
    held_out: float,
    seed: int,
    test: Samples | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
) -> dict[str, Material]:
    """Encode all pictures with each encoder, with the same test pictures: ``test``, or a part of ``samples``."""
    progress = progress or Progress()

    def crops(sample: Sample) -> list[Crop | None]:
        return crops_by_name(sample.image, recipe.n_crops, recipe.seed)

    if test is not None:
        check_apart(samples, test)
    found: dict[str, Material] = {}
    for name, encoder in encoders.items():
        if not found:
            how = HoldOut(held_out, seed, test, recipe.split)
            pictures = encode_samples(encoder, samples, how, store=store, progress=progress, views=crops)
            pictures = replace(pictures, validation=False)
        else:  # the same pictures by another encoder
            items = pictures.items
            request = EncodeRequest(views=lambda i, items=items: crops(items[i]))  # type: ignore[misc]
            stream = encode_stream(encoder, [s.source for s in items], store=store, request=request)
            seen = [one for _, one in progress.results(items, stream, "Looking at pictures")]
            if len(seen) < len(items):
                lost = progress.failures[-1]
                raise DataError(f"{lost.image} can be read by one encoder but not by another: {lost.error}. Remove it.")
            pictures = replace(pictures, encoded=seen)
        found[name] = Material(encoder, pictures, recipe)
        found[name].check()
    return found


def classifier_text(recipe: Linear) -> str:
    crops = f"{recipe.n_crops} crops" if recipe.n_crops else "no crops"
    return f"the linear classifier of seewhy fit ({recipe.solver}, {crops}) on frozen features"


def subset_order(
    labels: Int[Tensor, " n"], pool: Int[Tensor, " p"], classes: Sequence[int], seed: int | str
) -> Int[Tensor, " q"]:
    """Order positions so that the beginning of the list, however long, has all classes in proportion."""
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
