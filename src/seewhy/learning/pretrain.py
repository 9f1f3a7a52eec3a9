"""Training an encoder on pictures alone: what is trained, on which pictures, and what is kept of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import nn

from ..bounds import Bound, Count, InnerPart, check_fields
from ..encoders.base import Encoder, TrainableText
from ..errors import DataError, InputError, UnknownNameError
from ..pictures.datasets import samples_or_pictures
from ..pictures.samples import Sample, some, under_two_classes
from ..progress import Progress
from ..seeded import seeded
from ..storage.features import FeatureStore
from ..training.augmentation import Augmentation, TrainingPictures, augmentation
from ..training.batches import TrainingData
from ..training.loop import Trained, Training
from ..training.task import Task
from .encoders.projection import Form, Projection
from .encoders.towers import TunedPictures
from .objectives import objectives
from .objectives.pictures import Dense, PictureObjective, Vectors
from .pooled import PooledSet, encode_pictures
from .views import Views, dense_views
from .way import Finished, Tried, Way

TUNING_LR = 1e-4
"""Of encoders that say nothing of it."""


class Pretrained(Finished[PooledSet, Tried]):
    """A finished training on pictures."""


@dataclass(frozen=True)
class Pretrain(Way[PooledSet, Tried]):
    """How an encoder is trained on pictures alone, or on pictures with classes.

    Args:
        objective: one that needs no words, or its registered name.
        settings: of the objective, where it is named.
        projection: what stands behind the encoder while it is trained: see
            :class:`seewhy.learning.encoders.projection.Projection`.
        projection_width: of what it gives.
        kappa: of a fixed one; left out, by ``effective``.
        effective: coordinates of a fixed one that count; left out, half.
        keep_head: whether the encoder that is saved ends behind the projection instead of before it.
        pyramid: whether one on the trunk's stages is trained too, by its cells, and kept in the trunk's place.
        augmentation: what is done to views, or its name.
        epochs: times that each picture is seen.
        batch_size: pictures compared with one another.
        micro_batch: pictures whose networks are computed at once; left out, as many as the free memory is enough for.
        lr: highest learning rate; left out, the encoder's own.
        weight_decay: of everything but biases and scales.
        held_out: part of the pictures that is never trained on and measured on.
        seed: of weights, order, views.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "label", "group")
    all_of_it: ClassVar[Mapping[str, Any]] = {}
    by_class: ClassVar[bool] = True
    result: ClassVar[type[Finished[Any, Any]]] = Pretrained
    keep: float | None = field(init=False, default=1.0)
    may_forget: float = field(init=False, default=1.0)

    objective: PictureObjective | str = "simclr"
    settings: Mapping[str, Any] = field(default_factory=dict)
    projection: Form = "mlp"
    projection_width: int = 128
    kappa: float | None = None
    effective: float | None = None
    keep_head: bool = False
    pyramid: bool = False
    augmentation: Augmentation | str = "simclr"
    epochs: Count = 20
    batch_size: Annotated[int, Bound(2)] = 256
    micro_batch: int | None = None
    lr: float | None = None
    weight_decay: float = 1e-4
    held_out: InnerPart = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "pretrain")
        name, dense = self.made().name, isinstance(self.made(), Dense)
        unfit = "keep_head" if self.keep_head and dense else "pyramid" if self.pyramid and not dense else ""
        if unfit:
            sees, expected = ("cells", "whole views") if dense else ("whole views", "cells")
            raise InputError(
                f"pretrain was given {unfit}=True with the objective {name!r}, which is of {sees}. An objective of "
                f"{expected} was expected. Leave {unfit} out, or take another objective."
            )
        _ = self.head(), self.views()

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> tuple[Sample, ...]:
        found = samples_or_pictures(source, **columns)
        for note in found.notes:
            progress.note(note)
        check_classes(self.made(), found.items)
        return found.items

    def n_texts(self, read: Sequence[Sample]) -> int:
        return 0

    def look(self, on: Encoder, read: Sequence[Sample], store: FeatureStore | None, progress: Progress) -> PooledSet:
        return encode_pictures(on, read, store, progress)

    def refuse(self, on: Encoder, read: Sequence[Sample]) -> None:
        check_classes(self.made(), read)

    def check(self, own: PooledSet, progress: Progress) -> None:
        check_classes(self.made(), own.items)
        twice = under_two_classes([item.label for item in own.items], own.digests)
        names = [item.image for item, both in zip(own.items, twice, strict=True) if both]
        if names:
            progress.note(f"the same picture lies under two classes, which no objective can learn: {some(names, 3)}")

    def made(self) -> PictureObjective:
        """The objective."""
        if not isinstance(self.objective, str):
            return self.objective
        found = objectives[self.objective]
        if not issubclass(found, PictureObjective):
            able = ", ".join(name for name in objectives if is_of_pictures(name))
            raise InputError(
                f"The objective {self.objective!r} needs {found.needs}. One that needs pictures alone was expected: "
                f"{able}. Take one of those, or give pictures with texts."
            )
        known = [one.name for one in fields(cast(Any, found))]
        for name in self.settings:
            if name not in known:
                raise UnknownNameError(f"setting of {self.objective}", name, known)
        return found(**self.settings)

    def head(self) -> Projection:
        """The projection."""
        normalised = isinstance(self.made(), Dense)
        return Projection(self.projection, self.projection_width, self.kappa, self.effective, normalised)

    def views(self) -> Augmentation:
        """What is done to views."""
        return augmentation(self.augmentation) if isinstance(self.augmentation, str) else self.augmentation

    def training(self, data: TrainingData, on: Encoder) -> Training:
        own = on.text.tuning_lr if on.has_text and isinstance(on.text, TrainableText) else TUNING_LR
        return Training.cosine(self, data, self.lr or own, micro_batch=self.micro_batch)

    def seal(self, own: PooledSet) -> list[Any]:
        return [self.facts(), [item.label for item in own.items] if own.classes else []]

    def prepared(self, on: Encoder, own: PooledSet, progress: Progress) -> tuple[TunedPictures, Task, TrainingData]:
        objective, sources = self.made(), [item.source for item in own.items]
        pictures = TrainingPictures(on, sources, None, progress, n_views=objective.n_views, augmentation=self.views())
        columns: dict[str, Any] = {"pixels": pictures}
        classes = own.classes if objective.needs_labels else ()
        if classes:
            number = {name: i for i, name in enumerate(classes)}
            columns["labels"] = torch.tensor([number[item.label] for item in own.items])
        data, width = TrainingData(len(own), columns), own.pooled.shape[1]
        n_steps = self.training(data, on).n_steps
        if isinstance(objective, Dense):
            return *dense_views(on, objective, self.head(), self.pyramid, n_steps=n_steps, seed=self.seed), data
        if not isinstance(objective, Vectors):
            raise InputError(
                f"The objective {objective.name!r} is a {type(objective).__mro__[1].__name__}. One over views of "
                "pictures as vectors was expected. Take another."
            )
        tower = TunedPictures.before(on)
        with seeded(self.seed):
            head = self.head().build(width, progress)
            network, out = nn.Sequential(tower.trunk, tower.pool), self.head().out_width(width)
            n, k = len(own), len(classes)
            task = Views(network, head, objective, width=out, n_classes=k, n_pictures=n, n_steps=n_steps)
        if self.keep_head:
            tower.behind, tower.head = head, self.head().facts(width)
        return tower, task, data

    def facts(self) -> dict[str, Any]:
        """The settings, as JSON."""
        objective = self.made()
        plain = asdict(replace(self, objective=objective.name, settings={}, augmentation=self.views()))
        return {**plain, "settings": {"n_views": objective.n_views, **asdict(cast(Any, objective))}}

    def told(self, own: PooledSet, data: TrainingData, done: Trained) -> dict[str, Any]:
        sizes = {"n_pictures": len(own), "n_classes": len(own.classes)}
        return {**self.facts(), "train": "pictures", **sizes, "loss": done.loss}


def is_of_pictures(objective: str) -> bool:
    """Whether the objective of a name needs no words."""
    return issubclass(objectives[objective], PictureObjective)


def check_classes(objective: PictureObjective, items: Sequence[Sample]) -> None:
    """See that pictures have the classes that an objective needs."""
    if not objective.needs_labels:
        return
    without = [item.image for item in items if not item.label]
    if without:
        raise DataError(
            f"{len(without)} of {len(items)} pictures have no class: {some(without, 3)}. The objective "
            f"{objective.name} needs one of each. Name the column of classes, or take an objective without."
        )
    counts = Counter(item.label for item in items)
    if len(counts) < 2:
        raise DataError(
            f"All {len(items)} pictures are of one class, {next(iter(counts), '')!r}. Two or more were expected, as "
            f"the objective {objective.name} learns what parts them. Add another class, or take an objective without."
        )
    if max(counts.values()) == 1:
        raise DataError(
            f"Each of the {len(counts)} classes has one picture, as {next(iter(counts))!r} has. Two or more of some "
            f"class were expected, as the objective {objective.name} learns what those have in common. Add pictures, "
            "or take an objective without classes."
        )
