"""How prompts in both towers are learnt: pictures pass the tower at every step, as what it makes of them changes."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...classifiers.encoded_set import EncodedSet, Split, with_logits
from ...classifiers.fitting import Fitting, Outcome, PictureRecipe
from ...classifiers.network import Network
from ...encoders.base import Encoder
from ...encoders.split import freeze
from ...errors import InputError
from ...pictures.samples import Samples
from ...progress import Progress
from ...seeded import seeded
from ...training.augmentation import TrainingPictures
from ...training.batches import Batch, TrainingData
from ...training.loop import train
from ..cost import Cost, count
from .nearest_words import nearest_words
from .prompt_recipe import Lesson, drawn, say_absent, sgd
from .prompted import image_vectors
from .prompts import Names, PromptTask
from .tower_prompts import PromptedPictures, TowerPrompt, TowerPromptedNetwork, Towers, image_of


class TowerTask(PromptTask):
    """Pictures and names meet behind prompts in both towers: ``CE(scale cos(image, text), label)``.

    Args:
        towers: frozen.
        prompt: what learns.
        names: of the classes, in the labels' order.
    """

    needs = ("pixels", "labels")

    def __init__(self, towers: Towers, prompt: TowerPrompt, names: Names) -> None:
        super().__init__(prompt, names, towers.text.logit_scale)
        self.on, self.towers = towers.on, (PromptedPictures(towers, prompt),)  # used, and no part of what is trained

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        image = image_of(self.towers[0], self.on, batch["pixels"])
        return image, self.prompt.texts(self.names, image)


@dataclass(frozen=True)
class TowerPromptLearning(PictureRecipe):
    """Learns vectors in both halves of an encoder; the method writes :meth:`task`."""

    takes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    needs: ClassVar[str] = "pictures in classes, and an encoder whose halves are both transformers"
    stochastic: ClassVar[bool] = True
    network: ClassVar[type[Network] | None] = TowerPromptedNetwork
    words_are = "names"
    needs_tokens: ClassVar[bool] = True
    needs_attention: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {"depth": 1, "epochs": 2, "batch_size": 4}

    words: str = "a photo"
    n_tokens: int = 2
    depth: int = 9
    shots: int | None = None
    keep: float = 1.0
    epochs: int = 5
    batch_size: int = 4
    lr: float = 0.0035
    weight_decay: float = 5e-4
    held_out: float = 0.2
    split: Split = "grouped"
    n_bank: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.keep not in (0, 1):
            raise InputError(
                f"{self.name} was given keep={self.keep:g}. 0, the encoder as it was, or 1, all that was learnt, was "
                "expected, as a tower has prompts inside or none. Change it."
            )
        counts = {"epochs": self.epochs, "batch_size": self.batch_size, "n_tokens": self.n_tokens, "depth": self.depth}
        if min(counts.values()) < 1 or (self.shots is not None and self.shots < 1) or self.lr <= 0:
            said = ", ".join(f"{name}={value}" for name, value in counts.items())
            raise InputError(
                f"{self.name} was given {said}, shots={self.shots}, lr={self.lr:g}. Whole numbers from 1 and a rate "
                "above 0 were expected. Change them."
            )
        self.check()

    def check(self) -> None:
        """Refuse values of the method's own fields; most have none to refuse."""
        return

    @abstractmethod
    def task(self, towers: Towers, lesson: Lesson) -> TowerTask:
        """What learns, at its start; torch draws from the seed."""

    @final
    def learn(self, fitting: Fitting) -> Outcome:
        on, progress = fitting.encoder, fitting.progress
        towers = Towers.of(on)  # refused before anything is looked at
        towers.check(self.depth)
        pictures = drawn(fitting.look(), self.shots, self.seed, progress)
        say_absent(pictures, pictures.held.nonzero()[:, 0], progress)
        index = torch.tensor(pictures.trained)
        seen = [pictures.encoded[i] for i in index.tolist()]
        labels, names = pictures.labels[index], Names(towers.text, pictures.classes)
        read = TrainingPictures(on, [pictures.items[i].source for i in index.tolist()], None, progress)
        data = TrainingData(len(index), {"pixels": read, "labels": labels})
        per_epoch = data.steps_per_epoch(self.batch_size)
        image = image_vectors(on, torch.stack([one.pooled[0] for one in seen]))
        lesson = Lesson(on, pictures.classes, names, image, labels, self.epochs, per_epoch, self.lr)
        with seeded(self.seed):
            task = self.task(towers, lesson)
        digests = [one.digest for one in seen]
        seal = json.dumps([self.name, self.parameters(), on.fingerprint, pictures.classes, digests, labels.tolist()])
        done = train(task, data, sgd(self, self.lr, per_epoch), checkpoint=fitting.sealed(seal), progress=progress)
        prompt: Any = task.prompt
        freeze(prompt)
        own = json.loads(json.dumps(self.parameters()))
        network = TowerPromptedNetwork(on, prompt, float(self.keep), self.name, own)
        figures = {
            "keep": self.keep,
            "tried": [],
            "n_chosen_on": 0,
            "shots": self.shots,
            "loss": round(done.history[-1]["loss"], 4),
            "prompt": nearest_words(towers.text, prompt.vectors.detach()),
        }
        return self._outcome(network, pictures, figures, progress)

    def _outcome(
        self, network: TowerPromptedNetwork, pictures: EncodedSet, figures: dict[str, Any], progress: Progress
    ) -> Outcome:
        made = network.classifier(pictures.classes)
        index, held = pictures.held_by(made.encoder, progress)
        if held is not None:
            held = replace(held, before=pictures.own_crops(index).pooled)
        told = (
            f"prompts in both towers, of {len(pictures.trained):,} of your pictures of {len(pictures.classes)} classes"
        )
        measured = with_logits(made.head, held)
        made = replace(made, held_out=measured, trained_on=told)
        return Outcome(made, pictures, figures, measured=measured, index=None if held is None else index, keep=False)

    @final
    def estimate(self, on: Encoder, samples: Samples) -> Cost:
        """Look at some pictures, train a few steps, and count."""
        towers = Towers.of(on)
        names = Names(towers.text, samples.classes)

        def begun(pooled: Float[Tensor, "n p"]) -> tuple[TowerTask, TrainingData]:
            n = min(len(pooled), len(samples.items))
            image, labels = image_vectors(on, pooled[:n]), torch.arange(n) % len(samples.classes)
            read = TrainingPictures(on, [one.source for one in samples.items[:n]], None, Progress())
            lesson = Lesson(on, samples.classes, names, image, labels, 1, 1, self.lr)
            with seeded(self.seed):
                return self.task(towers, lesson), TrainingData(n, {"pixels": read, "labels": labels})

        each = Counter(item.label for item in samples.items)
        n = sum(min(self.shots or most, most) for most in each.values())
        return count(on, samples.items, len(samples.classes), begun, sgd(self, self.lr, max(1, n // self.batch_size)))
