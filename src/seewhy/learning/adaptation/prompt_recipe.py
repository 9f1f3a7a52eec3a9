"""Base classes of prompt learning."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...bounds import Count, Part, Positive
from ...classifiers.base import Classifier
from ...classifiers.encoded_set import EncodedSet, with_logits
from ...classifiers.fitting import Fitting, Outcome
from ...classifiers.network import Network
from ...encoders.base import Encoder
from ...encoders.split import freeze
from ...errors import DataError
from ...pictures.samples import Sample
from ...progress import Progress
from ...seeded import seeded
from ...training.batches import TrainingData
from ...training.loop import Training, train
from ..network_recipe import NetworkRecipe
from ..way import choose
from .prompts import Kept, Names, PromptedNetwork, PromptNetwork, PromptTask, image_vectors, opened
from .prompts import tried as tried_on


@dataclass(frozen=True, eq=False)
class Lesson:
    """Training data of a prompt."""

    on: Encoder
    classes: tuple[str, ...]
    names: Names
    image: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    n_epochs: int
    steps_per_epoch: int
    lr: float


@dataclass(frozen=True)
class PromptRecipe(NetworkRecipe):
    """Prompt learning; subclasses define :meth:`task`.

    Args:
        words: words whose embeddings are the initial prompt; if empty, the prompt starts as ``n_tokens`` random
            vectors.
        n_tokens: number of learnt vectors if ``words`` is empty, at least 1.
        shots: number of training pictures per class, at least 1; default: all pictures that are not held out.
        epochs: number of passes over the training pictures.
        batch_size: pictures per step; lower it if memory runs out.
        lr: highest learning rate of SGD with momentum 0.9; default: 0.1 with the embedded encoder, 0.002 (CoOp)
            with others.
        weight_decay: weight decay of all trained weights (authors: 5e-4).
    """

    takes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    needs: ClassVar[str] = "labelled pictures, and an encoder that gives word tokens"
    words_are = "names"
    needs_tokens: ClassVar[bool] = True
    column: ClassVar[str] = "image"

    words: str = "a photo of a"
    n_tokens: Count = 4
    shots: Count | None = None
    epochs: Count = 20
    batch_size: Count = 32
    lr: Positive | None = None
    weight_decay: float = 5e-4
    n_bank: int = 1000

    keep: ClassVar[Any]
    may_forget: ClassVar[float] = 1.0

    @abstractmethod
    def task(self, lesson: Lesson) -> PromptTask:
        """Return the untrained task."""

    def refuse(self, on: Encoder) -> None:
        """Check that an encoder accepts a prompt."""
        opened(on)

    def shown(self, on: Encoder, items: Sequence[Sample], image: Tensor, progress: Progress) -> Any:
        """Return the inputs for training; by default, the unit vectors of the pictures."""
        return image

    @abstractmethod
    def outcome(self, network: Any, pictures: EncodedSet, measured: Tensor, figures: Any, progress: Any) -> Outcome:
        """Return the classifier with its results."""

    @final
    def learn(self, fitting: Fitting) -> Outcome:
        on, progress = fitting.encoder, fitting.progress
        self.refuse(on)
        pictures = drawn(fitting.look(), self.shots, self.seed, progress)
        chosen_on, measured = self._held(pictures, progress)
        chosen = pictures.trained
        own, labels = [pictures.items[i] for i in chosen], pictures.labels[chosen]
        image, names = image_vectors(on, pictures.pooled[chosen]), Names(opened(on), pictures.classes)
        data = TrainingData(len(own), {self.column: self.shown(on, own, image, progress), "labels": labels})
        steps = data.steps_per_epoch(self.batch_size)
        lesson = Lesson(on, pictures.classes, names, image, labels, self.epochs, steps, self.rate(on))
        with seeded(self.seed):
            task = self.task(lesson)
        for what, values in task.facts.items():
            progress.note(f"{what.replace('_', ' ')}: {', '.join(values) or 'none'}")
        if task.advice:
            progress.note(task.advice)
        digests, parameters = [pictures.digests[i] for i in chosen], json.loads(json.dumps(self.parameters()))
        seal = json.dumps([self.name, parameters, on.fingerprint, pictures.classes, digests, labels.tolist()])
        how = replace(self.training(on, lesson.steps_per_epoch), part_lr=task.rates)
        done = train(task, data, how, checkpoint=fitting.sealed(seal), progress=progress)
        prompt = task.prompt
        freeze(prompt)
        tried: Sequence[Kept] = ()
        if len(chosen_on):
            known = (pictures.pooled[chosen_on], pictures.labels[chosen_on])
            tried = tried_on(on, prompt, lesson.names, lesson.classes, known, progress)
        keep = choose(tried, self.may_forget).keep if self.keep is None else self.keep
        if self.keep is None:
            progress.note(
                f"keep = {keep:g}, chosen on {len(chosen_on)} held-out pictures; results are measured on others"
            )
        figures = {
            "keep": keep, "tried": [asdict(row) for row in tried], "n_chosen_on": len(chosen_on), "shots": self.shots,
            "loss": round(done.history[-1]["loss"], 4), **task.facts,
        }  # fmt: skip
        kind: Any = self.network
        network: PromptNetwork = kind(on, prompt, float(keep), self.name, parameters)
        return self.outcome(network, pictures, measured, figures, progress)

    def _held(self, pictures: EncodedSet, progress: Progress) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"]]:
        """Return the indices of two sets of held-out pictures: for the choice of ``keep``, and for the evaluation."""
        held = pictures.held.nonzero()[:, 0]
        chosen_on, measured = halved(pictures, self.seed) if self.keep is None else (held[:0], held)
        if self.keep is None and not len(chosen_on):
            raise DataError(
                f"{self.name} cannot choose `keep` on held-out pictures, because no class has 2 or more objects. Add "
                "pictures, give --validation, or set keep=1."
            )
        there = set(pictures.labels[measured].tolist())
        absent = [name for k, name in enumerate(pictures.classes) if k not in there]
        if there and absent:
            progress.note(
                f"{len(absent)} class(es) have no held-out picture and are not evaluated, for example {absent[0]}"
            )
        return chosen_on, measured

    def rate(self, on: Encoder) -> float:
        return self.lr or float(getattr(on.text, "prompt_lr", 2e-3))

    def training(self, on: Encoder, steps_per_epoch: int) -> Training:
        """Return the training settings, with a warm-up of one epoch and a cosine schedule."""
        n_steps, warmup = self.epochs * steps_per_epoch, steps_per_epoch if self.epochs > 1 else 0
        sgd = {"optimiser": "sgd", "nesterov": False}
        return Training.of(self, n_steps=n_steps, lr=self.rate(on), schedule="cosine", warmup=warmup, **sgd)


@dataclass(frozen=True)
class PromptLearning(PromptRecipe):
    """Prompt learning in the text encoder, with a limit on the forgetting of other classes.

    Args:
        keep: interpolation weight, from 0 (original encoder) to 1 (trained prompt). By default, the weight is chosen on
            half of the held-out pictures within the limit ``may_forget``, and metrics are computed on the other half.
        may_forget: largest allowed loss of agreement with the original encoder on its own classes, 0 to 1; a lower
            value forgets less.
    """

    network: ClassVar[type[Network] | None] = PromptedNetwork
    small: ClassVar[Mapping[str, Any]] = {"epochs": 2, "batch_size": 4, "keep": 0.5}

    keep: Part | None = None  # type: ignore[misc]
    may_forget: Part = 0.1  # type: ignore[misc]

    def outcome(self, network: Any, pictures: EncodedSet, measured: Tensor, figures: Any, progress: Any) -> Outcome:
        classifier: Classifier = network.classifier(pictures.classes)
        held = with_logits(classifier.head, pictures.own_crops(measured)) if len(measured) else None
        n = len(pictures.trained)
        trained_on = f"{n:,} of your pictures, {len(pictures.classes)} classes, for a prompt before their names"
        classifier = replace(classifier, held_out=held, trained_on=trained_on)
        return Outcome(classifier, pictures, figures, measured=held, index=measured)


def drawn(pictures: EncodedSet, shots: int | None, seed: int, progress: Progress) -> EncodedSet:
    """Return ``shots`` random training pictures per class and all held-out pictures."""
    if shots is None:
        return pictures
    generator = torch.Generator().manual_seed(seed)
    kept, few = [], []
    for k, name in enumerate(pictures.classes):
        own = ((pictures.labels == k) & ~pictures.held).nonzero()[:, 0]
        kept += own[torch.randperm(len(own), generator=generator)[:shots]].tolist()
        few += [name] if len(own) < shots else []
    if few:
        progress.note(f"{len(few)} class(es) have fewer than {shots} training pictures, for example {few[0]}")
    return pictures.subset(sorted([*kept, *pictures.held.nonzero()[:, 0].tolist()]))


def halved(pictures: EncodedSet, seed: int) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"]]:
    """Split the held-out pictures of each class into two halves; pictures of the same object stay together."""
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
