"""Learning to see one picture in several ways: an instruction for each, and the answer that it should find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import InnerPart, Part
from ..encoders.base import Encoder
from ..encoders.names import own_vectors
from ..errors import DataError
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import Batch, TrainingData
from ..training.loop import Trained, Training, train
from ..training.task import Task
from .contrast import Drawn, PairTask
from .encoders.adapted import Adaptation
from .encoders.heads import RANK, InstructedHead
from .from_columns import FromColumns, Measures, split_settings
from .objectives.contrastive import Contrastive
from .objectives.pairs import FocalLens
from .pooled import PooledSet


@dataclass(frozen=True)
class Question:
    """One thing that pictures are asked."""

    instructions: Sequence[str]
    answers: Sequence[str]


class InstructedTask(PairTask):
    """Pictures under instructions, as a head behind the frozen encoder sees them, find their answers."""

    def __init__(self, on: Encoder, head: InstructedHead, objective: Contrastive) -> None:
        super().__init__(objective, "image", "instruction", "answer", labels=True)
        self.head = head.requires_grad_(True)
        self.project = on.text.project

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.project(self.head(batch["image"], batch["instruction"])), batch["answer"]

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self.compared(*features, batch)[0]}


@dataclass(frozen=True)
class Instruct:
    """How an encoder is taught to follow instructions.

    Args:
        objective: what is made small.
        rank: of the head.
        epochs: times that each triplet of picture, instruction and answer is seen.
        batch_size: triplets compared with one another.
        lr: highest learning rate.
        weight_decay: of everything but biases and the temperature.
        seed: of weights, order and wordings drawn.
    """

    objective: Contrastive = field(default_factory=FocalLens)
    rank: int = RANK
    epochs: int = 12
    batch_size: int = 512
    lr: float = 1.5e-3
    weight_decay: float = 0.1
    seed: int = 0

    def fit(
        self, on: Encoder, pooled: Float[Tensor, "n p"], questions: Sequence[Question], progress: Progress | None = None
    ) -> Adaptation:
        """Train a head on what the encoder has seen."""
        data = triplets(on, pooled, questions)
        head, task = self.task(on, pooled, questions)
        done = train(task, data, self.training(data, on), progress=progress)
        return Adaptation(on, head, 1.0, self.provenance(data, questions, done))

    def task(
        self, on: Encoder, pooled: Float[Tensor, "n p"], questions: Sequence[Question] = ()
    ) -> tuple[InstructedHead, InstructedTask]:
        """The head, as it is at first, and what it learns."""
        with seeded(self.seed):
            head = InstructedHead.before(on, pooled, self.rank)
        head.taught = tuple(words for question in questions for words in question.instructions)
        return head, InstructedTask(on, head, self.objective)

    def training(self, data: TrainingData, on: Encoder) -> Training:
        """Steps, batch and rate."""
        return Training.cosine(self, data, self.lr)

    def provenance(self, data: TrainingData, questions: Sequence[Question], done: Trained) -> dict[str, Any]:
        """What a card says of a training on what :func:`triplets` gave."""
        return {
            "objective": self.objective.name,
            "instructions": [list(question.instructions) for question in questions],
            "n_pictures": len(questions[0].answers),
            "n_triplets": data.n_samples,
            "n_steps": len(done.history),
            "seed": self.seed,
            "loss": round(done.history[-1]["loss"], 4),
        }


def triplets(on: Encoder, pooled: Float[Tensor, "n p"], questions: Sequence[Question]) -> TrainingData:
    """Every picture with everything that it is asked and whose answer is known."""
    given = [len(one.answers) for one in questions]
    rows = [(i, k) for k, one in enumerate(questions) for i, answer in enumerate(one.answers) if answer.strip()]
    words = sorted({questions[k].answers[i] for i, k in rows})
    if any(n != len(pooled) for n in given) or not all(one.instructions for one in questions) or len(words) < 2:
        raise DataError(
            f"{len(pooled)} pictures were given with {given} answers, {len(words)} of them different. An instruction "
            "or more for each list of answers, an answer for each picture, and two different ones were expected. Give "
            "those."
        )
    number = {word: n for n, word in enumerate(words)}
    label = torch.tensor([number[questions[k].answers[i]] for i, k in rows])
    sentences = [text for one in questions for text in one.instructions]
    first = [sum(len(one.instructions) for one in questions[:k]) for k in range(len(questions))]
    wordings = [range(first[k], first[k] + len(one.instructions)) for k, one in enumerate(questions)]
    vectors, placed = own_vectors(on.text, sentences).clone(), on.encode_text(words).clone()
    return TrainingData(
        len(rows),
        {
            "image": pooled[[i for i, _ in rows]],
            "instruction": Drawn([wordings[k] for _, k in rows], lambda chosen: vectors[chosen]),
            "answer": placed[label],
            "labels": label,
        },
    )


@dataclass(frozen=True)
class ByInstructions(FromColumns):
    """Each column answers an instruction.

    Args:
        instructions: column → the instruction, in one wording or several.
        how: the training.
        keep: how much of what was learnt is kept, 0 to 1; left out, chosen on held-out pictures: where their own
            values are the nearest most often, among what costs no more than ``may_forget``.
        may_forget: most of the agreement with the encoder's own classes that a ``keep`` that is chosen may cost.
        held_out: part of the pictures that is chosen and measured on.
    """

    objective: ClassVar[type[Contrastive]] = FocalLens
    form: ClassVar[str] = InstructedHead.form
    inner: ClassVar[type[Any]] = Instruct
    columns: ClassVar[tuple[str, ...]] = ("image", "group")

    instructions: Mapping[str, Sequence[str]]
    how: Instruct = field(default_factory=Instruct)
    keep: Part | None = None
    may_forget: Part = 0.1
    held_out: InnerPart = 0.1

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        own, inner = split_settings(settings)
        said = own.pop("instructions", None) or {}
        return cls({c: (s,) if isinstance(s, str) else tuple(s) for c, s in said.items()}, Instruct(**inner), **own)

    def columns_read(self) -> Mapping[str, str]:
        return {column: column for column in self.instructions}

    def names(self) -> Sequence[str]:
        return list(self.instructions)

    def refuse(self, on: Encoder, read: Any) -> None:
        _ = on.text

    def _questions(self, own: PooledSet) -> list[Question]:
        return [Question(list(said), own.first(column)) for column, said in self.instructions.items()]

    def prepared(self, on: Encoder, own: PooledSet, progress: Progress) -> tuple[InstructedHead, Task, TrainingData]:
        questions = self._questions(own)
        return *self.how.task(on, own.pooled, questions), triplets(on, own.pooled, questions)

    def provenance(self, own: PooledSet, data: TrainingData, done: Trained) -> dict[str, Any]:
        return {**self.how.provenance(data, self._questions(own), done), "columns": list(self.instructions)}

    def measures(self, after: Encoder) -> Measures:
        said = {column: several[0] for column, several in self.instructions.items()}
        return {f"{column} under '{words}'": (column, after.under(words), ("{}",)) for column, words in said.items()}
