"""How a prompt is learnt of a few pictures: drawn, trained on the one loop, and as much kept as holds elsewhere."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...classifiers.base import Classifier
from ...classifiers.encoded_set import EncodedSet, Split, with_logits
from ...classifiers.fitting import Fitting, Outcome, PictureRecipe
from ...classifiers.network import Network
from ...encoders.base import Encoder
from ...encoders.split import freeze
from ...errors import DataError, InputError
from ...pictures.samples import Samples
from ...progress import Progress
from ...seeded import seeded
from ...training.batches import TrainingData
from ...training.loop import Training, train
from ..cost import Cost, count
from .keeping import Kept, choose, tried
from .nearest_words import nearest_words
from .prompted import PromptedNetwork, image_vectors
from .prompts import Names, PromptTask, learning_rate, opened

if TYPE_CHECKING:
    from .tower_recipe import TowerPromptLearning


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a prompt is learnt from.

    Attributes:
        on: the encoder; it stays as it is.
        classes: those with pictures.
        names: the same, as they are read.
        image: a unit vector per picture.
        labels: of each.
        n_epochs: times that each is seen.
        steps_per_epoch: batches in which all are seen once.
        lr: the prompt's learning rate.
    """

    on: Encoder
    classes: tuple[str, ...]
    names: Names
    image: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    n_epochs: int
    steps_per_epoch: int
    lr: float


@dataclass(frozen=True)
class PromptLearning(PictureRecipe):
    """Learns vectors that stand before every class's name; the method writes :meth:`task`."""

    takes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    needs: ClassVar[str] = "pictures in classes, and an encoder that reads words token by token"
    stochastic: ClassVar[bool] = True
    network: ClassVar[type[Network] | None] = PromptedNetwork
    words_are = "names"
    needs_tokens: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {"epochs": 2, "batch_size": 4, "keep": 0.5}

    words: str = "a photo of a"
    n_tokens: int = 4
    shots: int | None = None
    keep: float | None = None
    may_forget: float = 0.1
    epochs: int = 20
    batch_size: int = 32
    lr: float | None = None
    weight_decay: float = 5e-4
    held_out: float = 0.2
    split: Split = "grouped"
    n_bank: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise InputError(
                f"{self.name} was given keep={self.keep:g}. A part from 0, the names as they were read before, to 1, "
                "all that was learnt, was expected. Change it, or leave it out to have it chosen."
            )
        small = self.epochs < 1 or self.batch_size < 1 or self.n_tokens < 1
        if small or (self.shots is not None and self.shots < 1) or not 0 <= self.may_forget <= 1:
            raise InputError(
                f"{self.name} was given epochs={self.epochs}, batch_size={self.batch_size}, n_tokens={self.n_tokens}, "
                f"shots={self.shots}, may_forget={self.may_forget:g}. Whole numbers from 1 and a part from 0 to 1 were "
                "expected. Change them."
            )
        self.check()

    def check(self) -> None:
        """Refuse values of the method's own fields; most have none to refuse."""
        return

    @abstractmethod
    def task(self, lesson: Lesson) -> PromptTask:
        """What learns, at its start; torch draws from the seed."""

    @final
    def learn(self, fitting: Fitting) -> Outcome:
        on, progress = fitting.encoder, fitting.progress
        tower = opened(on)  # refused before anything is looked at
        pictures = drawn(fitting.look(), self.shots, self.seed, progress)
        held = pictures.held.nonzero()[:, 0]
        chosen_on, measured = apart(pictures, self.seed) if self.keep is None else (held[:0], held)
        if self.keep is None and not len(chosen_on):
            raise DataError(
                f"{self.name} chooses on held-out pictures how much is kept, and no class has pictures of two things. "
                "Two or more of a class were expected. Give more pictures, other ones as validation, or keep=1."
            )
        say_absent(pictures, measured, progress)
        index = torch.tensor(pictures.trained)
        pooled = torch.stack([pictures.encoded[i].pooled[0] for i in index.tolist()])
        labels, names = pictures.labels[index], Names(tower, pictures.classes)
        image = image_vectors(on, pooled)
        data = TrainingData(len(index), {"image": image, "labels": labels})
        per_epoch = data.steps_per_epoch(self.batch_size)
        lesson = Lesson(on, pictures.classes, names, image, labels, self.epochs, per_epoch, self._rate(on))
        with seeded(self.seed):
            task = self.task(lesson)
        digests = [pictures.encoded[i].digest for i in index.tolist()]
        seal = json.dumps([self.name, self.parameters(), on.fingerprint, pictures.classes, digests, labels.tolist()])
        how = replace(sgd(self, self._rate(on), per_epoch), part_lr=task.rates)
        done = train(task, data, how, checkpoint=fitting.sealed(seal), progress=progress)
        prompt = task.prompt
        freeze(prompt)
        found = self._tried(task, lesson, pictures, chosen_on, progress)
        keep = choose(found, self.may_forget).keep if self.keep is None else self.keep
        if self.keep is None:
            progress.note(f"keep = {keep:g}, chosen on {len(chosen_on)} held-out pictures that are not reported on")
        assert self.network is not None
        kind: Any = self.network
        network = kind(on, prompt, keep, self.name, json.loads(json.dumps(self.parameters())))
        figures = {
            "keep": keep,
            "tried": [one.to_json() for one in found],
            "n_chosen_on": len(chosen_on),
            "shots": self.shots,
            "loss": round(done.history[-1]["loss"], 4),
            "prompt": nearest_words(tower, prompt.vectors.detach()),
        }
        return self._outcome(network, pictures, measured, figures)

    def _rate(self, on: Encoder) -> float:
        return self.lr or learning_rate(on)

    @final
    def estimate(self, on: Encoder, samples: Samples) -> Cost:
        """Look at some pictures, train a few steps, and count."""
        names = Names(opened(on), samples.classes)

        def begun(pooled: Tensor) -> tuple[PromptTask, TrainingData]:
            image, labels = image_vectors(on, pooled), torch.arange(len(pooled)) % len(samples.classes)
            lesson = Lesson(on, samples.classes, names, image, labels, 1, 1, self._rate(on))
            with seeded(self.seed):
                return self.task(lesson), TrainingData(len(image), {"image": image, "labels": labels})

        each = Counter(item.label for item in samples.items)
        n = sum(min(self.shots or most, most) for most in each.values())
        per_epoch = max(1, n // min(self.batch_size, n))
        return count(on, samples.items, len(samples.classes), begun, sgd(self, self._rate(on), per_epoch))

    def _tried(
        self, task: PromptTask, lesson: Lesson, pictures: EncodedSet, chosen_on: Tensor, progress: Progress
    ) -> Sequence[Kept]:
        if self.keep is not None or not len(chosen_on):
            return ()
        pooled = torch.stack([pictures.encoded[i].pooled[0] for i in chosen_on.tolist()])
        held = (pooled, pictures.labels[chosen_on])
        return tried(lesson.on, task.prompt, lesson.names, lesson.classes, held, progress)

    def _outcome(
        self, network: PromptedNetwork, pictures: EncodedSet, measured: Tensor, figures: dict[str, Any]
    ) -> Outcome:
        made: Classifier = network.classifier(pictures.classes)
        held = with_logits(made.head, pictures.own_crops(measured)) if len(measured) else None
        n = len(pictures.trained)
        told = f"a prompt before the names of {len(pictures.classes)} classes, of {n:,} of your pictures"
        made = replace(made, held_out=held, trained_on=told)
        return Outcome(made, pictures, figures, measured=held, index=measured)


def sgd(recipe: PromptLearning | TowerPromptLearning, lr: float, steps_per_epoch: int) -> Training:
    """With a cosine behind one epoch of rising, as the authors of CoOp and of what came after it train."""
    return Training(
        recipe.epochs * steps_per_epoch,
        recipe.batch_size,
        optimiser="sgd",
        nesterov=False,
        lr=lr,
        weight_decay=recipe.weight_decay,
        schedule="cosine",
        warmup=steps_per_epoch if recipe.epochs > 1 else 0,
        seed=recipe.seed,
    )


def drawn(pictures: EncodedSet, shots: int | None, seed: int, progress: Progress) -> EncodedSet:
    """So many pictures of each class to train on, and all that are held out."""
    if shots is None:
        return pictures
    generator = torch.Generator().manual_seed(seed)
    kept, few = [], []
    for k, name in enumerate(pictures.classes):
        own = ((pictures.labels == k) & ~pictures.held).nonzero()[:, 0]
        kept += own[torch.randperm(len(own), generator=generator)[:shots]].tolist()
        few += [name] if len(own) < shots else []
    if few:
        progress.note(f"{len(few)} class(es) have fewer than {shots} pictures to train on; the first: {few[0]}")
    return pictures.subset(sorted([*kept, *pictures.held.nonzero()[:, 0].tolist()]))


def apart(pictures: EncodedSet, seed: int) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"]]:
    """Held-out pictures to choose on, and others to measure on: half of each class, those of the same thing together.

    A class whose held-out pictures show one thing is on one side, by turns on either.
    """
    generator, side = torch.Generator().manual_seed(seed), {}
    turn = 0
    for k in range(len(pictures.classes)):
        groups = pictures.groups[(pictures.labels == k) & pictures.held].unique()
        for g in groups[torch.randperm(len(groups), generator=generator)].tolist():
            if g not in side:
                side[g], turn = turn % 2, turn + 1
    held = pictures.held.nonzero()[:, 0].tolist()
    parts = [[i for i in held if side[int(pictures.groups[i])] == s] for s in (0, 1)]
    return torch.tensor(parts[0], dtype=torch.long), torch.tensor(parts[1], dtype=torch.long)


def say_absent(pictures: EncodedSet, measured: Int[Tensor, " m"], progress: Progress) -> None:
    """A note of classes that no picture is measured of, where others are."""
    there = set(pictures.labels[measured].tolist())
    absent = [name for k, name in enumerate(pictures.classes) if k not in there]
    if there and absent:
        progress.note(
            f"{len(absent)} class(es) have no picture to measure on: nothing is said of them; the first: {absent[0]}"
        )
