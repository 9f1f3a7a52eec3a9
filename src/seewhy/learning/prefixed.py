"""Learning from names of classes and from captions at once, each under a prefix of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bounds import InnerPart, Part
from ..encoders.base import Encoder, Tokenised
from ..encoders.names import filled
from ..errors import DataError
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import TrainingData
from ..training.loop import Trained, Training, train
from ..training.task import Task
from .contrast import Contrast, Drawn
from .encoders.adapted import Adaptation
from .encoders.towers import SOURCES, PrefixedWords, trainable
from .from_columns import FromColumns, Measures, split_settings
from .objectives.contrastive import Contrastive
from .objectives.pairs import Prefix
from .pooled import PooledSet


@dataclass(frozen=True)
class Prefixing:
    """How a words half is trained on two kinds of texts, with pictures that stay where they are.

    Args:
        objective: what is made small; it says how long prefixes are, and whether each batch is of one kind.
        learn: the prefixes and the words half, or the prefixes alone.
        epochs: times that each pair is seen.
        batch_size: pairs compared with one another.
        micro_batch: pairs whose texts are read at once.
        lr: highest learning rate of the words half; left out, its own.
        prefix_lr: that of the prefixes, as a multiple.
        weight_decay: of everything but biases, the temperature and the prefixes.
        seed: of prefixes, order and captions drawn.
    """

    objective: Prefix = field(default_factory=Prefix)
    learn: Literal["words", "prefixes"] = "words"
    epochs: int = 4
    batch_size: int = 64
    micro_batch: int | None = None
    lr: float | None = None
    prefix_lr: float = 10.0
    weight_decay: float = 0.1
    seed: int = 0

    def fit(
        self,
        on: Encoder,
        pooled: Float[Tensor, "n p"],
        classes: Sequence[str],
        captions: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> Adaptation:
        """Train on what the encoder has seen."""
        data = two_kinds(on, pooled, classes, captions, self.objective)
        words, task = self.task(on)
        done = train(task, data, self.training(data, on), progress=progress)
        return Adaptation(on, words.requires_grad_(False), 1.0, self.provenance(data, classes, done))

    def provenance(self, data: TrainingData, classes: Sequence[str], done: Trained) -> dict[str, Any]:
        """What a card says of a training on what :func:`two_kinds` gave."""
        n_named = sum(bool(name.strip()) for name in classes)
        return {
            "objective": self.objective.name,
            "n_pictures": len(classes),
            "n_named": n_named,
            "n_captioned": data.n_samples - n_named,
            "seed": self.seed,
            "loss": round(done.history[-1]["loss"], 4),
        }

    def task(self, on: Encoder) -> tuple[PrefixedWords, Contrast]:
        """The words half with prefixes, as it is at first, and what it learns."""
        with seeded(self.seed):
            words = PrefixedWords.before(on, self.objective.n_tokens)
        words.prefix.requires_grad_(True)
        words.words.requires_grad_(self.learn == "words")
        return words, Contrast(nn.Identity(), words, self.objective, column="image", labels=True)

    def training(self, data: TrainingData, on: Encoder) -> Training:
        """Steps, batch and rate."""
        prefix = {"part_lr": (("text.prefix", self.prefix_lr),), "part_decay": (("text.prefix", 0.0),)}
        lr = self.lr or trainable(on).tuning_lr
        return Training.cosine(self, data, lr, micro_batch=self.micro_batch, **prefix)


def two_kinds(
    on: Encoder,
    pooled: Float[Tensor, "n p"],
    classes: Sequence[str],
    captions: Sequence[Sequence[str]],
    objective: Prefix,
) -> TrainingData:
    """A pair for each picture with a class and one for each with captions; batches of one kind where they are asked.

    Pairs of one class share a label, and so do pictures with the same captions.
    """
    tower = trainable(on)
    named = [i for i, name in enumerate(classes) if name.strip()]
    told = [i for i, several in enumerate(captions) if len(several)]
    if {len(classes), len(captions)} != {len(pooled)} or min(len(named), len(told)) < 2:
        raise DataError(
            f"{len(pooled)} pictures were given with {len(classes)} classes, {len(named)} of them named, and "
            f"{len(captions)} lists of captions, {len(told)} of them with one. As many of each, and two named and two "
            "captioned or more, were expected. Give those."
        )
    choices = [[(0, filled(t, classes[i])) for t in tower.templates] for i in named]
    choices += [[(1, caption) for caption in captions[i]] for i in told]
    keys: list[tuple[str, ...]] = [("class", classes[i]) for i in named] + [("caption", *captions[i]) for i in told]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}

    def made(drawn: list[tuple[int, str]]) -> Tokenised:
        return torch.tensor([source for source, _ in drawn]), *tower.tokens([text for _, text in drawn])

    with torch.no_grad():
        image: Tensor = tower.project(pooled[[*named, *told]])
    kinds = torch.tensor([0] * len(named) + [1] * len(told))
    columns = {"image": image, "text": Drawn(choices, made), "labels": torch.tensor([number[key] for key in keys])}
    return TrainingData(len(keys), columns, apart=kinds if objective.debiased else None)


@dataclass(frozen=True)
class ByClassesAndCaptions(FromColumns):
    """One column names classes, others are captions; a picture may have either or both.

    Args:
        label: the column of classes.
        text: the columns of captions; left out, those called text, caption, title or alike.
        how: the training.
        keep: how much of what was learnt is kept, as for :class:`seewhy.learning.instructed.ByInstructions`.
        may_forget: most that a ``keep`` that is chosen may cost.
        held_out: part of the pictures that is chosen and measured on.
    """

    objective: ClassVar[type[Contrastive]] = Prefix
    form: ClassVar[str] = PrefixedWords.form
    inner: ClassVar[type[Any]] = Prefixing
    columns: ClassVar[tuple[str, ...]] = ("image", "text", "label", "group")

    label: str | None
    text: str | Sequence[str] | None = None
    how: Prefixing = field(default_factory=Prefixing)
    keep: Part | None = None
    may_forget: Part = 0.1
    held_out: InnerPart = 0.1

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        own, inner = split_settings(settings)
        return cls(columns.get("label"), columns.get("text"), Prefixing(**inner), **own)

    def columns_read(self) -> Mapping[str, str | Sequence[str] | None]:
        return {"class": self.label, "caption": self.text}

    def names(self) -> Sequence[str]:
        return SOURCES[:1]

    def refuse(self, on: Encoder, read: Any) -> None:
        trainable(on)

    def prepared(self, on: Encoder, own: PooledSet, progress: Progress) -> tuple[PrefixedWords, Task, TrainingData]:
        data = two_kinds(on, own.pooled, own.first("class"), own.said["caption"], self.how.objective)
        return *self.how.task(on), data

    def provenance(self, own: PooledSet, data: TrainingData, done: Trained) -> dict[str, Any]:
        captions = [self.text] if isinstance(self.text, str) else list(self.text or ())
        return {**self.how.provenance(data, own.first("class"), done), "columns": [self.label, *captions]}

    def measures(self, after: Encoder) -> Measures:
        read = {source: after if source == SOURCES[-1] else after.under(source) for source in SOURCES}
        return {
            f"{self.label}, read as {source}": ("class", encoder, encoder.text.templates)
            for source, encoder in read.items()
        }
