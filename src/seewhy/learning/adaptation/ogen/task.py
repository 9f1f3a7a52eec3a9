"""What OGEN trains: a prompt, on pictures and on features made for classes as if they had none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, mse_loss

from ....training.batches import Batch
from ..prompt_recipe import Lesson
from ..prompts import Names, Prompt, PromptTask
from .generator import FeatureGenerator, neighbours, statistics

Extrapolation = Literal["joint", "per_class"]


class OGENTask(PromptTask):
    """A prompt and a generator of features; see :class:`seewhy.learning.adaptation.ogen.recipe.OGEN` for the loss.

    Args:
        prompt: what is kept of it.
        lesson: pictures, names, and how long.
        scale: of the cosines.
        generator: what makes features.
        new: names of classes without pictures, if there are any.
        k: near classes.
        extrapolation: from all near classes at once, or from each alone.
        warm: part of the epochs in which the generator alone learns.
        distil: weight of the teacher's word.
        window: checkpoints that the teacher is made of, at first and in the end.
        rate: the generator's learning rate, as a multiple of the prompt's.
    """

    n_done: Tensor
    past: Tensor
    taught: Tensor

    def __init__(
        self,
        prompt: Prompt,
        lesson: Lesson,
        scale: float,
        generator: FeatureGenerator,
        new: Names | None,
        k: int,
        extrapolation: Extrapolation,
        warm: float,
        distil: float,
        window: tuple[int, int],
        rate: float,
    ) -> None:
        super().__init__(prompt, lesson.names, scale)
        self.generator, self.new = generator.requires_grad_(True), new
        self.extrapolation, self.warm, self.distil, self.window = extrapolation, warm, distil, window
        self.rates = (("generator.", rate),)
        self.n_epochs, self.steps_per_epoch = lesson.n_epochs, lesson.steps_per_epoch
        n = len(lesson.classes)
        self.mean, self.deviation = statistics(lesson.image, lesson.labels, n)
        self.near = neighbours(self.mean, k)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("past", prompt.vectors.detach().repeat(window[1], 1, 1))
        self.register_buffer("taught", torch.zeros(n, lesson.image.shape[1]))

    @property
    def epoch(self) -> int:
        """That is under way."""
        return int(self.n_done) // self.steps_per_epoch

    @property
    def warming(self) -> bool:
        """Whether the generator learns alone."""
        return self.epoch < int(self.warm * self.n_epochs)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.warming):
            return batch["image"], self.prompt.texts(self.names, batch["image"])

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        (image, text), labels = features, batch["labels"]
        near = self.near[labels]
        draw = torch.rand(1, image.shape[1])
        value = self.mean[near] + draw * self.deviation[near]
        terms = self.made(image, text, labels, value)
        logits = self.scale * image @ text.T
        right = (logits.argmax(1) == labels).float().mean()
        if self.warming:
            zero = terms["generated"].detach() * 0
            return {"loss": terms["generated"], "right": right, "generated": terms["generated"], "distilled": zero}
        distilled = self._distilled(image, logits)
        whole = terms["loss"] + 0.25 * cross_entropy(logits, labels) + self.distil * distilled
        return {"loss": whole, "right": right, "generated": terms["generated"], "distilled": distilled}

    def made(
        self, image: Float[Tensor, "b d"], text: Float[Tensor, "c d"], labels: Int[Tensor, " b"], value: Tensor
    ) -> dict[str, Tensor]:
        """The terms of features that were made: how far they are from real ones, and how they are told."""
        near, width = self.near[labels], image.shape[1]
        k = near.shape[1]
        query, key = text[labels].detach()[:, None], text[near].detach()
        if self.extrapolation == "joint":
            one, target, of = self.generator(query, key, value), image, labels
        else:
            apart = (t.reshape(-1, 1, width) for t in (query.expand(-1, k, -1), key, value))
            one = self.generator(*apart)
            target, of = image.repeat_interleave(k, 0), labels.repeat_interleave(k)
        back = self.generator(key, query, image[:, None])
        generated = width * (mse_loss(one, target) + mse_loss(back, value.flatten(0, 1)))
        if self.warming:
            return {"generated": generated}
        told = 0.25 * cross_entropy(self.scale * one @ text.T, of)
        told = told + 0.25 / k * cross_entropy(self.scale * back @ text.T, near.flatten())
        if self.new is not None:
            told = told + self._unknown(image, query)
        return {"generated": generated, "loss": generated + told}

    def _unknown(self, image: Tensor, query: Tensor) -> Tensor:
        """Features of the names without pictures that are nearest to each picture's own class."""
        assert self.new is not None
        text = self.prompt.texts(self.new, image)
        nearest = (query[:, 0] @ text.T).topk(min(self.near.shape[1], len(text))).indices
        made = self.generator(text[nearest], query, image[:, None])
        return 0.5 / nearest.shape[1] * cross_entropy(self.scale * made @ text.T, nearest.flatten())

    def _distilled(self, image: Tensor, logits: Tensor) -> Tensor:
        """``KL(teacher || student)`` on the batch's classes, once there is a teacher."""
        if not self.distil or not bool(self.taught.any()):
            return logits.sum() * 0
        said = (self.scale * image @ self.taught.T).log_softmax(1)
        return kl_div(logits.log_softmax(1), said, reduction="batchmean", log_target=True)

    def after_step(self) -> None:
        self.n_done += 1
        if int(self.n_done) % self.steps_per_epoch:
            return
        self.past.copy_(torch.cat([self.past[1:], self.prompt.vectors.detach()[None]]))
        if self.distil and not self.warming:
            self.taught.copy_(self.names.read(self.teacher()))

    def teacher(self) -> Float[Tensor, "p w"]:
        """A running average over a window of past epochs, which widens: the last ``m_t`` of them.

        ``m_t = floor((1 - cos(pi t / T)) / 2 (m_max - m_min) + m_min)``, each counting ``1 / m_t`` beside those before.
        """
        least, most = self.window
        t = min(1.0, self.epoch / self.n_epochs)
        n = min(most, self.epoch, math.floor((1 - math.cos(math.pi * t)) / 2 * (most - least) + least))
        found = self.past[-max(n, 1)]
        for one in self.past[len(self.past) - max(n, 1) + 1 :]:
            found = (1 - 1 / max(n, 2)) * found + one / max(n, 2)
        return found
