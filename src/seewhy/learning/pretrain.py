"""Training an encoder on pictures alone: what is trained, on which pictures, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..encoders.adapted import Adaptation
from ..encoders.base import Encoder, TrainableText
from ..encoders.projection import Form, Projection
from ..encoders.tuned_pictures import TunedPictures
from ..errors import DataError, InputError, UnknownNameError
from ..pictures.samples import Sample, some, split, under_two_classes
from ..pictures.unlabelled import pictures_of
from ..progress import Progress
from ..seeded import seeded
from ..storage.features import FeatureStore
from ..training.augmentation import TrainingPictures
from ..training.batches import TrainingData
from ..training.distortions import Augmentation, augmentation
from ..training.loop import Trained, Training, train
from ..training.task import Task
from .dense import check_cells, dense_views
from .objectives import objectives
from .objectives.pictures import Dense, PictureObjective, Vectors
from .seen_pairs import look_at_pictures, parted
from .views import Views
from .way import Finished, Tried, Way, say_shared

TUNING_LR = 1e-4
"""Of encoders that say nothing of it."""


@dataclass(frozen=True, eq=False)
class SeenPictures:
    """Pictures that can be read, as an encoder saw them.

    Attributes:
        items: with their classes, where they have any.
        digests: of their files.
        pooled: of each.
    """

    items: tuple[Sample, ...]
    digests: tuple[str, ...]
    pooled: Float[Tensor, "n p"]

    def __len__(self) -> int:
        return len(self.items)

    def only(self, rows: Sequence[int]) -> SeenPictures:
        """Some of them."""
        items, digests = tuple(self.items[i] for i in rows), tuple(self.digests[i] for i in rows)
        return SeenPictures(items, digests, self.pooled[list(rows)])

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, where every picture has one; none otherwise."""
        labels = {item.label for item in self.items}
        return () if "" in labels else tuple(sorted(labels))

    def split(self, held_out: float, seed: int) -> tuple[SeenPictures, SeenPictures]:
        """What is trained on and what is held out: of every class a part, where there are classes and no groups.

        Copies and groups are on one side.
        """
        labels = [item.label for item in self.items]
        if self.classes and not any(item.group for item in self.items):
            out = split(labels, self.digests, held_out, seed)
            own, held = ([i for i, flag in enumerate(out) if flag is side] for side in (False, True))
        else:
            own, held = parted(self.items, self.digests, held_out, seed)
        if len(own) < 2:
            raise DataError(
                f"{len(own)} picture(s) are left to train on, of {len(self)} that can be read. Two or more were "
                "expected, as they are told from one another. Give more pictures."
            )
        return self.only(own), self.only(held)


@dataclass(frozen=True, eq=False)
class Pretrained(Finished[SeenPictures, Tried]):
    """A finished training on pictures; nothing was tried, since all is kept."""


@dataclass(frozen=True)
class Pretrain(Way):
    """How an encoder is trained on pictures alone, or on pictures with classes.

    Args:
        objective: one that needs no words, or its registered name.
        settings: of the objective, where it is named.
        projection: what stands behind the encoder while it is trained: see
            :class:`seewhy.encoders.projection.Projection`.
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
    epochs: int = 20
    batch_size: int = 256
    micro_batch: int | None = None
    lr: float | None = None
    weight_decay: float = 1e-4
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not 0 < self.held_out < 1:
            raise InputError(
                f"pretrain was given epochs={self.epochs}, batch_size={self.batch_size}, held_out={self.held_out:g}. "
                "An epoch or more, batches of two or more pictures, which are told from one another, and a part "
                "between 0 and 1 were expected. Change them."
            )
        check_cells(self.made(), pyramid=self.pyramid, keep_head=self.keep_head)
        _ = self.head(), self.views()

    @classmethod
    def takes(cls) -> set[str]:
        return {one.name for one in fields(cls) if one.init} - {"objective"}

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        return cls(objective, **settings)

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> tuple[Sample, ...]:
        found = pictures_of(source, **columns)
        for note in found.notes:
            progress.note(note)
        check_classes(self.made(), found.items)
        return found.items

    def n_texts(self, read: Sequence[Sample]) -> int:
        return 0

    def some(self, read: Sequence[Sample], n: int) -> Sequence[Sample]:
        return read[:: max(1, len(read) // n)][:n]

    def look(self, on: Encoder, read: Sequence[Sample], store: FeatureStore | None, progress: Progress) -> SeenPictures:
        return SeenPictures(*look_at_pictures(on, read, store, progress))

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
        size = min(self.batch_size, data.n_samples)
        steps = self.epochs * data.steps_per_epoch(size)
        own = on.text.tuning_lr if on.has_text and isinstance(on.text, TrainableText) else TUNING_LR
        return Training(
            steps,
            size,
            lr=self.lr or own,
            weight_decay=self.weight_decay,
            schedule="cosine",
            warmup=min(20, steps // 5),
            seed=self.seed,
            micro_batch=self.micro_batch,
        )

    def fit(
        self,
        on: Encoder,
        items: Sequence[Sample],
        *,
        validation: Sequence[Sample] | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
        history: Path | None = None,
    ) -> Pretrained:
        """Look, train, and take what is kept."""
        progress = progress or Progress()
        check_classes(self.made(), items)
        seen = self.look(on, items, store, progress)
        if validation is None:
            own, held = seen.split(self.held_out, self.seed)
        else:
            own, held = seen, self.look(on, validation, store, progress)
            say_shared(own, held, progress)
        check_classes(self.made(), own.items)
        say_contradictions(own, progress)
        tower, task, data = self.prepared(on, own, progress)
        labels = [item.label for item in own.items] if own.classes else []
        seal = json.dumps([self.facts(), labels, on.fingerprint, own.digests])
        kept = None if checkpoint is None else (checkpoint, seal)
        done = train(task, data, self.training(data, on), checkpoint=kept, history=history, progress=progress)
        facts = {**self.facts(), **_figures(own, held, done)}
        adaptation = Adaptation(on, tower, 1.0, facts, tuple(dict.fromkeys(own.digests)))
        return Pretrained(adaptation, done, (), own, held)

    def prepared(self, on: Encoder, own: SeenPictures, progress: Progress) -> tuple[TunedPictures, Task, TrainingData]:
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
        tower = TunedPictures.before(on)
        with seeded(self.seed):
            head = self.head().build(width, progress)
            task = task_of(
                objective,
                nn.Sequential(tower.trunk, tower.pool),
                head,
                width=self.head().out_width(width),
                n_classes=len(classes),
                n_pictures=len(own),
                n_steps=n_steps,
            )
        if self.keep_head:
            tower.behind, tower.head = head, self.head().facts(width)
        return tower, task, data

    def facts(self) -> dict[str, Any]:
        """The settings, as JSON."""
        objective = self.made()
        plain = asdict(replace(self, objective=objective.name, settings={}, augmentation=self.views()))
        return {**plain, "settings": {"n_views": objective.n_views, **asdict(cast(Any, objective))}}


def is_of_pictures(objective: PictureObjective | str) -> bool:
    """Whether an objective, or the one of a name, needs no words."""
    if isinstance(objective, str):
        return issubclass(objectives[objective], PictureObjective)
    return isinstance(objective, PictureObjective)


def task_of(objective: PictureObjective, tower: nn.Module, head: nn.Module, **sizes: Any) -> Task:
    """The task of an objective, by its base shape."""
    if isinstance(objective, Vectors):
        return Views(tower, head, objective, **sizes)
    raise InputError(
        f"The objective {objective.name!r} is a {type(objective).__mro__[1].__name__}. One over views of pictures as "
        "vectors was expected. Take another."
    )


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
    counts: dict[str, int] = {}
    for item in items:
        counts[item.label] = counts.get(item.label, 0) + 1
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


def say_contradictions(seen: SeenPictures, progress: Progress) -> None:
    """A note that names a picture that lies under two classes."""
    twice = under_two_classes([item.label for item in seen.items], seen.digests)
    names = [item.image for item, both in zip(seen.items, twice, strict=True) if both]
    if names:
        progress.note(f"the same picture lies under two classes, which no objective can learn: {some(names, 3)}")


def _figures(own: SeenPictures, held: SeenPictures, done: Trained) -> dict[str, Any]:
    return {
        "train": "pictures",
        "keep": 1.0,
        "n_pictures": len(own),
        "n_classes": len(own.classes),
        "n_measured_on": len(held),
        "n_steps": len(done.history),
        "loss": done.loss,
    }
