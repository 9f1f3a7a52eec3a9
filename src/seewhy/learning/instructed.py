"""Learning to see one picture in several ways: an instruction for each, and the answer that it should find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.adapted import Adaptation
from ..encoders.base import Encoder
from ..encoders.instructed import RANK, InstructedHead
from ..encoders.names import own_vectors
from ..encoders.split import freeze
from ..errors import DataError
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import Batch, TrainingData
from ..training.distributed import gathered
from ..training.loop import Trained, Training, train
from ..training.task import Task
from .contrast import Drawn
from .objectives.contrastive import Contrastive, Temperature
from .objectives.focallens import FocalLens


@dataclass(frozen=True)
class Asked:
    """One thing that pictures are asked.

    Attributes:
        instructions: in several wordings, such as ``"the colour"`` and ``"what colour is it?"``; one is drawn at every
            step, so that other wordings are understood too.
        answers: of each picture, in words; empty where nobody knows.
    """

    instructions: Sequence[str]
    answers: Sequence[str]


class InstructedTask(Task):
    """Pictures under instructions find their answers.

    Args:
        on: the encoder, frozen.
        head: what is trained.
        objective: what is made small.
    """

    needs: ClassVar[tuple[str, ...]] = ("image", "instruction", "answer", "labels")

    def __init__(self, on: Encoder, head: InstructedHead, objective: Contrastive) -> None:
        super().__init__()
        self.head, self.objective = head.requires_grad_(True), objective
        self.project = on.text.project
        self.state: Temperature = objective.state()

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        image = self.project(self.head(batch["image"], batch["instruction"]))
        return image, batch["answer"]

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        both, share = gathered(torch.cat(features, 1))
        image, answer = both.chunk(2, 1)
        labels = gathered(batch["labels"])[0]
        return {"loss": self.objective(image, answer, labels, self.state, share=share)}

    def after_step(self) -> None:
        self.state.hold()


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
        self,
        on: Encoder,
        pooled: Float[Tensor, "n p"],
        asked: Sequence[Asked],
        progress: Progress | None = None,
    ) -> Adaptation:
        """Train a head on what the encoder has seen.

        Args:
            on: the encoder, with words; it stays as it is.
            pooled: pictures, as it pools them.
            asked: what they are asked, at least one thing, with an answer for each picture.
            progress: hears of progress.

        Raises:
            DataError: no two different answers, or not one for each picture.
            InputError: the loss is not finite.
            ModelError: the encoder has no words.
        """
        data = triplets(on, pooled, asked)
        head, done = self.trained(on, pooled, data, progress)
        head.taught = wordings(asked)
        return Adaptation(on, head, 1.0, self.provenance(data, asked, done))

    def trained(
        self,
        on: Encoder,
        pooled: Float[Tensor, "n p"],
        data: TrainingData,
        progress: Progress | None = None,
        checkpoint: tuple[Path, str] | None = None,
    ) -> tuple[InstructedHead, Trained]:
        """The head after training on what :func:`triplets` gives, and its steps; see :func:`.loop.train`."""
        head, task = self.task(on, pooled)
        done = train(task, data, self.training(data), checkpoint=checkpoint, progress=progress)
        freeze(head)
        return head, done

    def task(self, on: Encoder, pooled: Float[Tensor, "n p"]) -> tuple[InstructedHead, InstructedTask]:
        """The head, as it is at first, and what it learns."""
        with seeded(self.seed):
            head = InstructedHead.before(on, pooled, self.rank)
        return head, InstructedTask(on, head, self.objective)

    def training(self, data: TrainingData) -> Training:
        """Steps, batch and rate."""
        size = min(self.batch_size, data.n_samples)
        steps = self.epochs * data.steps_per_epoch(size)
        return Training(
            steps,
            size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="cosine",
            warmup=min(20, steps // 5),
            seed=self.seed,
        )

    def provenance(self, data: TrainingData, asked: Sequence[Asked], done: Trained) -> dict[str, Any]:
        """What a card says of a training on what :func:`triplets` gave."""
        return {
            "objective": self.objective.name,
            "instructions": [list(one.instructions) for one in asked],
            "n_pictures": len(asked[0].answers),
            "n_triplets": data.n_samples,
            "n_steps": len(done.history),
            "seed": self.seed,
            "loss": round(done.history[-1]["loss"], 4),
        }


def wordings(asked: Sequence[Asked]) -> tuple[str, ...]:
    """Every instruction, in each of its wordings."""
    return tuple(words for one in asked for words in one.instructions)


def triplets(on: Encoder, pooled: Float[Tensor, "n p"], asked: Sequence[Asked]) -> TrainingData:
    """Every picture with everything that it is asked and whose answer is known.

    Raises:
        DataError: see :meth:`Instruct.fit`.
    """
    given = [len(one.answers) for one in asked]
    rows = [(i, k) for k, one in enumerate(asked) for i, answer in enumerate(one.answers) if answer.strip()]
    words = sorted({asked[k].answers[i] for i, k in rows})
    if any(n != len(pooled) for n in given) or not all(one.instructions for one in asked) or len(words) < 2:
        raise DataError(
            f"{len(pooled)} pictures were given with {given} answers, {len(words)} of them different. An instruction "
            "or more for each list of answers, an answer for each picture, and two different ones were expected. Give "
            "those."
        )
    number = {word: n for n, word in enumerate(words)}
    label = torch.tensor([number[asked[k].answers[i]] for i, k in rows])
    sentences = [text for one in asked for text in one.instructions]
    first = [sum(len(one.instructions) for one in asked[:k]) for k in range(len(asked))]
    wordings = [range(first[k], first[k] + len(one.instructions)) for k, one in enumerate(asked)]
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
